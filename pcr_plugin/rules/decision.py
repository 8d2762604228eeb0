"""From the statistics of every block to its weights, for every named rule."""

from collections.abc import Callable
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
        alpha: (B,) projection strength; meaningful where `conflict`. NaN where the weights come
            from `weigh`, which knows no such strength.
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
    weigh: Callable[[Tensor], Tensor] | None = None,
) -> BlockWeights:
    """Apply a rule to every block.

    Args:
        rule: `pcr`, `pcgrad`, `soft`, `sum` or `observe`; not read with `weigh`.
        gramian: (B, 2, 2) [[p.p, p.s], [p.s, s.s]] over whole blocks.
        variances: (B, 2) V_pla and V_sta in one unit; read by `pcr` and `observe` only.
        beta: the KL coefficient.
        fixed_alpha: alpha of the rule `soft`.
        gate: project in a conflict only.
        min_cosine: a conflict needs a cosine below `-min_cosine`.
        stability_floor: in a conflict keep at least `beta`; not read with `weigh`.
        weigh: decides in a conflict in place of a rule: from the (C, 2, 2) Gramians of
            (p, beta s) of the C > 0 blocks in conflict to the (C, 2) weights of p and of beta s.
            Not called with a beta of 0: then there is one gradient.

    Returns:
        The weights and the diagnostics.
    """
    if weigh is not None:
        conflict = find_conflicts(gramian, gate=gate, min_cosine=min_cosine)
        return _weighed(gramian, beta, conflict, weigh)
    alpha, measured = _strength(rule, variances, fixed_alpha)
    degenerate = ~torch.isfinite(gramian).flatten(1).all(dim=1) | ~measured
    conflict = find_conflicts(gramian, gate=gate, min_cosine=min_cosine) & ~degenerate
    project = torch.zeros_like(conflict) if rule in _UNPROJECTED else conflict
    weights = soft_projection(gramian, alpha, project, beta, stability_floor=stability_floor)
    return BlockWeights(weights, alpha, conflict, degenerate)


def _weighed(
    gramian: Tensor, beta: float, conflict: Tensor, weigh: Callable[[Tensor], Tensor]
) -> BlockWeights:
    """The weights that `weigh` proposes, and p + beta s where it proposes nothing finite."""
    scale = gramian.new_tensor([1.0, beta])
    proposed = torch.ones_like(gramian[:, 0])
    if beta != 0 and bool(conflict.any()):
        proposed[conflict] = weigh(gramian[conflict] * torch.outer(scale, scale))
    known = torch.isfinite(proposed).all(dim=1)
    weights = torch.where(known[:, None], proposed, 1.0) * scale
    degenerate = ~torch.isfinite(gramian).flatten(1).all(dim=1) | ~known
    unknown = torch.full_like(weights[:, 0], torch.nan)
    return BlockWeights(weights, unknown, conflict & known, degenerate)


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
