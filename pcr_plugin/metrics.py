"""The numbers a run logs, all from the Gramians, variances and weights of the blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcr_plugin.rules import BlockWeights

PREFIX = "pcr/"


def step_metrics(
    gramian: Tensor, variances: Tensor, cross: Tensor, decision: BlockWeights
) -> dict[str, float]:
    """One optimizer step's metrics; means over blocks unless said.

    Args:
        gramian: (B, 2, 2).
        variances: (B, 2) V of p and of s, in absolute units.
        cross: (B,) p.s without same-sample bias, or NaN.
        decision: what the rule decided.

    Returns:
        Metric name, with the prefix `pcr/`, to value. A mean over no blocks is left out (for
        example `alpha` when no block is in conflict), so that an average over steps is not
        pulled towards a made-up number.
    """
    norm_pla, norm_sta, norm_final = block_norms(gramian, decision.weights)
    w_pla, w_sta = decision.weights.unbind(dim=1)
    product = gramian[:, 0, 1]
    final_sta = w_pla * product + w_sta * gramian[:, 1, 1]
    values = {
        "conflict_rate": decision.conflict.double(),
        "cos": product / (norm_pla * norm_sta),
        "cos_unbiased": cross / (norm_pla * norm_sta),
        "cos_final_sta": final_sta / (norm_final * norm_sta),
        "alpha": decision.alpha[decision.conflict],
        "beta_eff": w_sta,
        "norm_pla": norm_pla,
        "norm_sta": norm_sta,
        "norm_final": norm_final,
        "var_pla": variances[:, 0],
        "var_sta": variances[:, 1],
        "snr_pla": gramian[:, 0, 0] / variances[:, 0],
        "snr_sta": gramian[:, 1, 1] / variances[:, 1],
        "removed": 1 - norm_final**2 / norm_pla**2,
    }
    means = {
        PREFIX + name: mean for name, value in values.items() if (mean := _mean(value)) is not None
    }
    means[PREFIX + "active"] = 1.0
    means[PREFIX + "degenerate_blocks"] = float(decision.degenerate.sum())
    return means


def block_metrics(
    labels: Sequence[str], gramian: Tensor, decision: BlockWeights
) -> dict[str, float]:
    """Cosine, alpha and effective beta of every block (`pcr.log_blocks`).

    Args:
        labels: B names, `<layer>.<part>`.
        gramian: (B, 2, 2).
        decision: what the rule decided.

    Returns:
        `pcr/block/<label>/{cos,alpha,beta_eff}`; alpha only in a conflict, cos only where both
        gradients exist.
    """
    norm_pla, norm_sta, _ = block_norms(gramian, decision.weights)
    columns = {
        "cos": gramian[:, 0, 1] / (norm_pla * norm_sta),
        "alpha": torch.where(decision.conflict, decision.alpha, torch.nan),
        "beta_eff": decision.weights[:, 1],
    }
    return {
        f"{PREFIX}block/{label}/{name}": value
        for name, column in columns.items()
        for label, value in zip(labels, column.tolist(), strict=True)
        if value == value
    }


def block_norms(gramian: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) norms of p, s and the combined gradient, without touching a gradient again.

    Args:
        gramian: (B, 2, 2).
        weights: (B, 2).
    """
    combined = torch.einsum("bi,bij,bj->b", weights, gramian, weights)
    return (
        gramian[:, 0, 0].sqrt(),
        gramian[:, 1, 1].sqrt(),
        combined.clamp(min=0).sqrt(),
    )


def _mean(values: Tensor) -> float | None:
    """Mean of the finite values, None if there is none."""
    finite = values[torch.isfinite(values)]
    return finite.mean().item() if finite.numel() else None
