"""From many estimates of V to their bias and spread, and to what they do to alpha."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.estimators.exact import Exact
from pcr_plugin.estimators import Objective
from pcr_plugin.rules import bayesian_strength
from pcr_plugin.statistics import scaled_variances

# An error of alpha that is counted.
LARGE = 0.1


def alphas(variances: Tensor) -> Tensor:
    """Alpha of the preset `paper`.

    Args:
        variances: (..., 2) V of p and of s.

    Returns:
        (...) in [0, 1].
    """
    flat = variances.reshape(-1, 2)
    scaled = scaled_variances(flat, torch.zeros(len(flat), 2, 2), 0.0, "absolute")
    return bayesian_strength(scaled).reshape(variances.shape[:-1])


def quality(estimates: Sequence[Tensor], exact: Sequence[Exact]) -> dict[str, float]:
    """How far estimates are from the exact values.

    Args:
        estimates: per batch (repeats, B, 2) of V.
        exact: per batch.

    Returns:
        Per objective the relative bias, its standard error and the relative standard deviation,
        means over blocks and batches; of alpha the bias, the standard deviation, the mean absolute
        error and the share of errors above `LARGE`. Names with `redrawn`: mean size of the
        bias, and of the error of alpha, against the batch drawn again.
    """
    found, truth = torch.cat(list(estimates), dim=1), torch.cat([its.variances for its in exact])
    redrawn = torch.cat([its.redrawn for its in exact])
    figures: dict[str, float] = {"repeats": len(found)}
    for objective, name in ((Objective.PLASTICITY, "pla"), (Objective.STABILITY, "sta")):
        errors = found[..., objective] / truth[:, objective] - 1
        # One repeat's blocks have their order in common, but not the repeats.
        of_repeats = errors.mean(dim=1)
        figures[f"bias_{name}"] = float(of_repeats.mean())
        figures[f"bias_{name}_error"] = float(of_repeats.std() / len(of_repeats) ** 0.5)
        figures[f"sd_{name}"] = float(errors.std(dim=0).mean())
        ratios = found[..., objective].mean(dim=0) / redrawn[:, objective]
        figures[f"redrawn_{name}"] = float((ratios - 1).abs().mean())
    wrong = alphas(found) - alphas(truth)
    figures["alpha_bias"] = float(wrong.mean())
    figures["alpha_sd"] = float(wrong.std(dim=0).mean())
    figures["alpha_error"] = float(wrong.abs().mean())
    figures["alpha_large"] = float((wrong.abs() > LARGE).double().mean())
    figures["alpha_redrawn"] = float((alphas(found) - alphas(redrawn)).abs().mean())
    return figures


def resampled(exact: Exact, count: int, seed: int) -> Tensor:
    """V of batches that might have been: sequences drawn from this one with replacement.

    Args:
        exact: of a batch.
        count: of drawn batches.
        seed: of the random numbers.

    Returns:
        (count, B, 2); their spread is the noise that V has because a batch is finite.
    """
    draw = torch.Generator().manual_seed(seed)
    spread = exact.spread()
    rows = torch.randint(len(spread), (count, len(spread)), generator=draw)
    return torch.stack([spread[chosen].sum(dim=0) for chosen in rows])


def about(batch: Any, exact: Exact) -> dict[str, Any]:
    """What a batch is like.

    Args:
        batch: rewards, tokens and advantages.
        exact: its variances.
    """
    grouped = torch.eye(len(batch.rewards) // batch.answers, dtype=torch.float64)
    by_question = exact.with_units(grouped.repeat_interleave(batch.answers, dim=1))
    return {
        "reward": float(batch.rewards.mean()),
        "without_advantage": batch.without_advantage,
        "tokens": float(batch.tokens.sum()),
        "shortest": float(batch.tokens.min()),
        "longest": float(batch.tokens.max()),
        "variances": exact.variances.tolist(),
        "alpha": alphas(exact.variances).tolist(),
        "redrawn": (exact.variances / exact.redrawn).tolist(),
        "residual": (exact.residual() / exact.redrawn).tolist(),
        "alpha_redrawn": alphas(exact.redrawn).tolist(),
        "cosines": exact.cosines.tolist(),
        "questions_as_units": (by_question / exact.variances).tolist(),
        "alpha_of_questions": alphas(by_question).tolist(),
        "rest": exact.rest,
    }
