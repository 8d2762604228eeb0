"""Blocks taken apart where their gradients come in different units.

Under expert parallelism a rank's gradient of an expert holds the tokens of several ranks, so the
units of a layer's experts are fewer and larger than those of the rest of its MLP. The trace of a
covariance adds up over parameters, so each part is measured by itself:

V of a block = sum of the V of its cells. Inner products add up in the same way.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from pcr_plugin.blocks.partition import Block


class Cells(NamedTuple):
    """The parts of all blocks; one per block where all parameters have the same units.

    Attributes:
        parts: C sets of parameters, each of which has the same units throughout.
        block_of: (C,) index of the block of each.
        merged: (C,) whether its units are those of several ranks together.
    """

    parts: tuple[Block, ...]
    block_of: tuple[int, ...]
    merged: tuple[bool, ...]


def cells(blocks: Sequence[Block], merged: Collection[str]) -> Cells:
    """Take blocks apart.

    Args:
        blocks: the scope's blocks.
        merged: names of the parameters whose units are those of several ranks together; the same
            on every rank.

    Returns:
        The cells, in the order of the blocks.
    """
    inside = frozenset(merged)
    found = [
        (index, together, members)
        for index, block in enumerate(blocks)
        for together in (False, True)
        if (members := tuple(n for n in block.parameters if (n in inside) == together))
    ]
    return Cells(
        parts=tuple(Block(name=blocks[index].name, parameters=m) for index, _, m in found),
        block_of=tuple(index for index, _, _ in found),
        merged=tuple(together for _, together, _ in found),
    )
