"""Inner products of this rank's gradient shards, block by block.

| symbol | shape        | meaning                                                   |
|--------|--------------|-----------------------------------------------------------|
| p      | flat, local  | plasticity gradient, grad of the surrogate loss (Eq. 8)   |
| s      | flat, local  | stability gradient, grad of the KL loss without beta (Eq. 9) |
| G      | (B, 2, 2)    | [[p.p, p.s], [p.s, s.s]] per block                        |
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# Elements promoted to float64 at a time: 32 MiB of scratch memory for each operand.
_CHUNK = 1 << 22


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner product of two tensors of one shape, accumulated in float64.

    Two gradients of a large block are nearly orthogonal, so their product is a small difference
    of large sums: its sign, which decides about a conflict, needs more than float32.

    Args:
        first: any shape and floating dtype.
        second: the same shape.

    Returns:
        A float64 scalar on the tensors' device; 0 for empty tensors.
    """
    total = torch.zeros((), dtype=torch.float64, device=first.device)
    for left, right in _promoted(first, second):
        total += torch.dot(left, right)
    return total


def _promoted(first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Corresponding parts of two tensors in float64; promoting costs more than multiplying."""
    left, right = first.reshape(-1), second.reshape(-1)
    for start in range(0, left.numel(), _CHUNK):
        part = slice(start, start + _CHUNK)
        one = left[part].double()
        yield one, one if second is first else right[part].double()


def local_gramian(
    plasticity: Sequence[Tensor | None],
    stability: Sequence[Tensor | None],
    block_of: Sequence[int],
    blocks: int,
    device: torch.device,
) -> Tensor:
    """This rank's share of the Gramian of every block.

    Args:
        plasticity: local shards of p; `None` where a parameter got no gradient.
        stability: local shards of s, in the same order.
        block_of: the block of each shard.
        blocks: number of blocks B.
        device: where the result lives.

    Returns:
        (B, 2, 2) in float64. The sum over the ranks that hold a replica's shards is the Gramian
        of the whole block.
    """
    gramian = torch.zeros(blocks, 2, 2, dtype=torch.float64, device=device)
    for p, s, block in zip(plasticity, stability, block_of, strict=True):
        if p is not None and s is not None:
            for left, right in _promoted(p, s):
                product = torch.dot(left, right)
                gramian[block, 0, 0] += torch.dot(left, left)
                gramian[block, 0, 1] += product
                gramian[block, 1, 0] += product
                gramian[block, 1, 1] += torch.dot(right, right)
        elif p is not None:
            gramian[block, 0, 0] += dot(p, p)
        elif s is not None:
            gramian[block, 1, 1] += dot(s, s)
    return gramian
