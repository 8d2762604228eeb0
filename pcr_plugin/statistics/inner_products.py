"""Inner products of this rank's gradient shards, block by block.

| symbol | shape        | meaning                                                   |
|--------|--------------|-----------------------------------------------------------|
| p      | flat, local  | plasticity gradient, grad of the surrogate loss (Eq. 8)   |
| s      | flat, local  | stability gradient, grad of the KL loss without beta (Eq. 9) |
| G      | (B, 2, 2)    | [[p.p, p.s], [p.s, s.s]] per block                        |
"""

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor

# Elements promoted to float64 at a time. On a CPU 2 MiB for each operand, which stay in its cache;
# elsewhere 32 MiB, since every chunk costs launches.
_CHUNK_ON_CPU = 1 << 18
_CHUNK = 1 << 22


def local_gramian(
    gradients: Sequence[Sequence[Tensor | None]],
    block_of: Sequence[int],
    blocks: int,
    device: torch.device,
) -> Tensor:
    """This rank's share of the Gramian of every block, accumulated in float64.

    Two gradients of a large block are nearly orthogonal, so their product is a small difference
    of large sums: its sign, which decides about a conflict, needs more than float32.

    Args:
        gradients: n of them, each as local shards in one order: p and s, and maybe parts of them;
            `None` where a parameter got no gradient.
        block_of: the block of each shard.
        blocks: number of blocks B.
        device: where the result lives.

    Returns:
        (B, n, n) in float64. The sum over the ranks that hold a replica's shards is the Gramian
        of the whole block.
    """
    size = len(gradients)
    gramian = torch.zeros(blocks, size, size, dtype=torch.float64, device=device)
    for shards, block in zip(zip(*gradients, strict=True), block_of, strict=True):
        present = [(i, shard) for i, shard in enumerate(shards) if shard is not None]
        for parts in _promoted([shard for _, shard in present]):
            indexed = zip([i for i, _ in present], parts, strict=True)
            for (i, left), (j, right) in combinations_with_replacement(indexed, 2):
                gramian[block, i, j] += torch.dot(left, right)
    return gramian + gramian.triu(diagonal=1).mT


def _promoted(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Corresponding parts of tensors in float64; promoting costs more than multiplying."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    if not flat:
        return
    chunk = _CHUNK_ON_CPU if flat[0].device.type == "cpu" else _CHUNK
    for start in range(0, flat[0].numel(), chunk):
        yield [tensor[start : start + chunk].double() for tensor in flat]
