"""Inner products of what a host holds, each element counted by one rank."""

from collections.abc import Sequence

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
