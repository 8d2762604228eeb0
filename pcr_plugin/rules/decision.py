"""From the statistics of every block to its weights, for every named rule."""

from typing import NamedTuple

import torch
from torch import Tensor

from pcr_plugin.rules.conflict import find_conflicts
from pcr_plugin.rules.projection_strength import bayesian_strength
from pcr_plugin.rules.soft_projection import soft_projection

# Rules that weigh as the host does; `observe` still reports what `pcr` would have done.
_UNPROJECTED = ("sum", "observe")


class BlockWeights(NamedTuple):
    """What a rule decided, per block.

    Attributes:
        weights: (B, 2) weights of p and of s (without beta).
        alpha: (B,) projection strength; meaningful where `conflict`.
        conflict: (B,) bool, where the two gradients are in conflict.
        degenerate: (B,) bool, where a number was not finite and the block got p + beta s.
    """

    weights: Tensor
    alpha: Tensor
    conflict: Tensor
    degenerate: Tensor


def decide(
    rule: str,
    gramian: Tensor,
    variances: Tensor,
    beta: float,
    *,
    fixed_alpha: float | None = None,
    gate: bool = True,
    min_cosine: float = 0.0,
    stability_floor: bool = False,
) -> BlockWeights:
    """Apply a rule to every block.

    Args:
        rule: `pcr`, `pcgrad`, `soft`, `sum` or `observe`.
        gramian: (B, 2, 2) [[p.p, p.s], [p.s, s.s]] over whole blocks.
        variances: (B, 2) V_pla and V_sta in one unit; read by `pcr` and `observe` only.
        beta: the KL coefficient.
        fixed_alpha: alpha of the rule `soft`.
        gate: project in a conflict only.
        min_cosine: a conflict needs a cosine below `-min_cosine`.
        stability_floor: in a conflict keep at least `beta`.

    Returns:
        The weights and the diagnostics.
    """
    alpha, measured = _strength(rule, variances, fixed_alpha)
    degenerate = ~torch.isfinite(gramian).flatten(1).all(dim=1) | ~measured
    conflict = find_conflicts(gramian, gate=gate, min_cosine=min_cosine) & ~degenerate
    project = torch.zeros_like(conflict) if rule in _UNPROJECTED else conflict
    weights = soft_projection(gramian, alpha, project, beta, stability_floor=stability_floor)
    return BlockWeights(weights, alpha, conflict, degenerate)


def _strength(rule: str, variances: Tensor, fixed: float | None) -> tuple[Tensor, Tensor]:
    """Alpha per block, and whether what it was computed from is finite."""
    like = variances[:, 0]
    known = torch.ones_like(like, dtype=torch.bool)
    if rule == "pcgrad":
        return torch.ones_like(like), known
    if rule == "sum":
        return torch.zeros_like(like), known
    if rule == "soft":
        assert fixed is not None, "the configuration checks that soft has an alpha"
        return torch.full_like(like, fixed), known
    return bayesian_strength(variances), torch.isfinite(variances).all(dim=1)
