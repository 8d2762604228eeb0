"""Inner products of what a host holds, each element counted by one rank."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcr_plugin.gradients import Gradients, Local
from pcr_plugin.statistics import local_gramian


def counted_gramian(access: Gradients, gradients: Sequence[Local], blocks: int) -> Tensor:
    """This rank's share of the Gramian of every block.

    Args:
        access: the host's gradients.
        gradients: n of them, as `access` gives them.
        blocks: number of blocks B.

    Returns:
        (B, n, n) in float64; the sum over all ranks of the model is the whole.
    """
    return local_gramian(
        [
            [shard if counts else None for shard, counts in zip(g, access.counted, strict=True)]
            for g in gradients
        ],
        access.block_of,
        blocks,
        access.device,
    )


def without_mix(gramian: Tensor, mix: float) -> Tensor:
    """From inner products of (p + mix s, s) to those of (p, s): a change of basis.

    Args:
        gramian: (B, 2 n, 2 n) in float64 of n such pairs, one after the other.
        mix: how much of s is in the first of every pair.
    """
    pair = torch.tensor([[1.0, -mix], [0.0, 1.0]], dtype=gramian.dtype, device=gramian.device)
    if not mix:
        return gramian
    change = torch.kron(torch.eye(gramian.shape[-1] // 2).to(pair), pair)
    return change @ gramian @ change.T
