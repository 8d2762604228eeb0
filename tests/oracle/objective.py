"""The two losses of Eq. 4-6 over one unit of a mini-batch, normalised over the whole of it.

Loss of plasticity: the clipped surrogate (Eq. 2, with the dual clip for negative advantages) minus
the entropy bonus. Loss of stability: the KL estimator, without beta.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.oracle.model import Architecture, Weights, next_token_log_probs
from tests.support.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Everything the losses depend on beside data and weights.

    Args:
        aggregation: `token-mean`, `seq-mean-token-mean` or `seq-mean-token-sum`.
        kl: `k2`, `low_var_kl` (k3) or `k3+` (the value of k3, the gradient of k2).
        entropy: coefficient of the entropy bonus.
        temperature: of the sampling distribution.
        clip: half-width of the clipping interval of the ratio.
        dual_clip: bound of the loss of a negative advantage.
    """

    aggregation: str = "token-mean"
    kl: str = "k3+"
    entropy: float = 0.0
    temperature: float = 1.0
    clip: float = 0.2
    dual_clip: float = 3.0


@dataclass(frozen=True)
class Totals:
    """Normalisers of the global mini-batch: tokens, and rows (also fully masked ones)."""

    tokens: float
    rows: int

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory]) -> "Totals":
        """Count a mini-batch."""
        tokens = sum(float(t.normalising.sum()) for t in trajectories)
        return cls(tokens, len(trajectories))


def losses(
    weights: Weights,
    architecture: Architecture,
    unit: Sequence[Trajectory],
    objective: Objective,
    totals: Totals,
) -> tuple[Tensor, Tensor]:
    """Contribution of one unit to the two losses.

    Args:
        weights: all parameters, float64.
        architecture: sizes of the model.
        unit: the trajectories of the unit.
        objective: what is computed.
        totals: of the mini-batch that the unit is part of.

    Returns:
        The losses of plasticity and stability; over all units they add up to the mini-batch's.
    """
    plasticity = torch.zeros((), dtype=torch.float64)
    stability = torch.zeros((), dtype=torch.float64)
    for trajectory in unit:
        chosen, entropy = _response(weights, architecture, trajectory, objective)
        share = _share(trajectory, objective, totals)
        surrogate = _surrogate(chosen, trajectory, objective)
        plasticity = plasticity + (share * (surrogate - objective.entropy * entropy)).sum()
        stability = stability + (share * _kl(chosen, trajectory, objective)).sum()
    return plasticity, stability


def _response(
    weights: Weights, architecture: Architecture, trajectory: Trajectory, objective: Objective
) -> tuple[Tensor, Tensor]:
    """Log-probability of the response's tokens, and the entropy where they were chosen."""
    tokens = torch.cat([trajectory.prompt, trajectory.response])
    table = next_token_log_probs(weights, tokens, architecture, objective.temperature)
    before = table[len(trajectory.prompt) - 1 : -1]
    chosen = before.gather(1, trajectory.response[:, None]).squeeze(1)
    return chosen, -(before.exp() * before).sum(dim=1)


def _share(trajectory: Trajectory, objective: Objective, totals: Totals) -> Tensor:
    """(T,) factor of every token's loss."""
    mask = trajectory.mask.double()
    if objective.aggregation == "token-mean":
        return mask / totals.tokens
    if objective.aggregation == "seq-mean-token-sum":
        return mask / totals.rows
    assert objective.aggregation == "seq-mean-token-mean", objective.aggregation
    return mask / max(trajectory.tokens, 1.0) / totals.rows


def _surrogate(chosen: Tensor, trajectory: Trajectory, objective: Objective) -> Tensor:
    advantage = trajectory.advantages.double()
    ratio = (chosen - trajectory.old_log_probs.double()).exp()
    clipped = ratio.clamp(1 - objective.clip, 1 + objective.clip)
    loss = -torch.minimum(ratio * advantage, clipped * advantage)
    bounded = torch.minimum(loss, -advantage * objective.dual_clip)
    return torch.where(advantage < 0, bounded, loss)


def _kl(chosen: Tensor, trajectory: Trajectory, objective: Objective) -> Tensor:
    difference = trajectory.ref_log_probs.double() - chosen
    if objective.kl in ("k2", "k3+"):
        return difference.square() / 2
    assert objective.kl == "low_var_kl", objective.kl
    estimate = difference.exp() - difference - 1
    assert bool((estimate < 10).all()), "the data must stay inside the host's clamp"
    return estimate
