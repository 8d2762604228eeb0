"""Mini-batches that say nothing, or in which one number is broken."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from tests.support.trajectory import Trajectory


def without_advantages(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The same answers, all as good as the others: no gradient of the surrogate."""
    return without_some_advantages(trajectories, range(len(trajectories)))


def without_some_advantages(
    trajectories: Sequence[Trajectory], rows: Sequence[int]
) -> list[Trajectory]:
    """The same mini-batch, in which some answers have the advantage zero.

    Args:
        trajectories: the mini-batch.
        rows: which.
    """
    return [
        replace(t, advantages=torch.zeros_like(t.advantages)) if row in rows else t
        for row, t in enumerate(trajectories)
    ]


def with_advantage(
    trajectories: Sequence[Trajectory], row: int, advantage: float
) -> list[Trajectory]:
    """The same mini-batch with another advantage in one row.

    Args:
        trajectories: the mini-batch.
        row: which.
        advantage: for example infinity.
    """
    result = list(trajectories)
    values = torch.full_like(result[row].advantages, advantage)
    result[row] = replace(result[row], advantages=values)
    return result


def with_unknown_reference(trajectories: Sequence[Trajectory], row: int) -> list[Trajectory]:
    """The same mini-batch with one reference log-probability that is not a number."""
    result = list(trajectories)
    reference = result[row].ref_log_probs.clone()
    reference[1] = torch.nan
    result[row] = replace(result[row], ref_log_probs=reference)
    return result
