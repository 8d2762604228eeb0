"""Which sequences are one unit when the rows of a batch stand in some order."""

import torch
from torch import Tensor


def random_orders(rows: int, count: int, seed: int) -> list[Tensor]:
    """Permutations of the rows.

    Args:
        rows: N.
        count: how many.
        seed: of the random numbers.
    """
    draw = torch.Generator().manual_seed(seed)
    return [torch.randperm(rows, generator=draw) for _ in range(count)]


def units(estimator: str, order: Tensor, micro_batches: int) -> Tensor:
    """The units of `micro_batch` or `split_half`.

    Args:
        estimator: which of the two.
        order: (N,) of the rows.
        micro_batches: of equally many rows.

    Returns:
        (M, N) 1 where a sequence is in a unit, else 0.
    """
    micro_batch = torch.arange(len(order)) // (len(order) // micro_batches)
    halves = estimator == "split_half"
    members = torch.zeros(2 if halves else micro_batches, len(order), dtype=torch.float64)
    # Whole micro-batches alternate between the halves.
    members[micro_batch % 2 if halves else micro_batch, order] = 1.0
    return members
