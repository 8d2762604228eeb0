"""Gradient access for Megatron-core, whose gradients live in flat buffers.

Another pass would reduce over ranks what an earlier pass has left in the buffers. So between
passes the scope's gradients are copied out, of every bucket the part that is valid here: with the
distributed optimizer 1 / data-parallel ranks of it. The others are made ready to be reduced again,
see `megatron_rest`.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import Local, Seen
from pcr_plugin.verl.megatron_rest import Rest
from pcr_plugin.verl.megatron_slices import buffer_slices, gradient_of


class MegatronGradients:
    """Implements `pcr_plugin.gradients.Gradients` on owned slices of gradient buffers.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules, one per virtual pipeline stage.
        blocks: the scope's blocks, of names that `buffer_slices` gives on any rank.
    """

    def __init__(self, chunks: Sequence[Any], blocks: Sequence[Block]) -> None:
        self._chunks = chunks
        block_of = {name: i for i, block in enumerate(blocks) for name in block.parameters}
        found = buffer_slices(chunks)
        self._scope = [part for part in found if part.name in block_of]
        self._rest = Rest(chunks, [part for part in found if part.name not in block_of])
        self._block_of = [block_of[part.name] for part in self._scope]
        self._watched: list[Any] = []

    @property
    def names(self) -> Sequence[str]:
        """Names of the in-scope parameters that this rank has a part of."""
        return [part.name for part in self._scope]

    @property
    def parameters(self) -> Sequence[Any]:
        """They themselves, in the same order."""
        return [part.parameter for part in self._scope]

    @property
    def block_of(self) -> Sequence[int]:
        """Block of every one of them."""
        return self._block_of

    @property
    def counted(self) -> Sequence[bool]:
        """Where no other rank counts the same elements."""
        return [part.counted for part in self._scope]

    @property
    def device(self) -> torch.device:
        """Where the buffers are."""
        device: torch.device = self._chunks[0].buffers[0].grad_data.device
        return device

    def watch(self, seen: Seen) -> None:
        """Report the gradients that autograd hands to Megatron-core's buffers.

        Of a parameter that tensor-parallel ranks share all but the first report a zero: that
        there was a gradient, which would otherwise be taken for one that no hook saw.

        The hooks sit where Megatron-core has its own. A tensor's hooks do not last: a bridge that
        exports weights may broadcast the parameters themselves, and torch then drops them.
        """
        for index, part in enumerate(self._scope):
            accumulator = _accumulator(part.parameter)
            accumulator.register_prehook(_report(index, seen, part.in_model))
            self._watched.append(accumulator)

    def read(self) -> Local:
        """The owned slices in the scope, as views."""
        return [gradient_of(part) for part in self._scope]

    def begin(self) -> None:
        """Nothing of an earlier step is brought back."""
        self._rest.begin()

    @torch.no_grad()
    def take(self) -> Local:
        """Copy the owned slices in the scope; `keep_rest` zeroes the buffers."""
        return [gradient_of(part).clone() for part in self._scope]

    @torch.no_grad()
    def add(self, taken: Local, factors: Sequence[float]) -> None:
        """Add taken gradients, times one factor each, to those that are there."""
        for part, values, factor in zip(self._scope, taken, factors, strict=True):
            assert values is not None, "every parameter has a place in a buffer"
            gradient_of(part).add_(values, alpha=factor)

    @torch.no_grad()
    def keep_rest(self, factor: float) -> None:
        """Keep what is outside the scope, and zero everything else in the buffers."""
        self._rest.keep(factor)

    @torch.no_grad()
    def finish_rest(self) -> None:
        """Bring back what `keep_rest` has set aside."""
        self._rest.finish()


@torch.no_grad()
def are_finite(chunks: Sequence[Any]) -> bool:
    """Whether every number in this rank's gradient buffers is finite.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules.
    """
    buffers = [each for chunk in chunks for each in chunk.buffers + chunk.expert_parallel_buffers]
    # The largest of them is not finite where one is not, and needs no second buffer.
    largest = [torch.linalg.vector_norm(b.grad_data, ord=inf) for b in buffers if b.numel]
    return all(bool(value.isfinite()) for value in largest)


@torch.enable_grad()
def _accumulator(parameter: Tensor) -> Any:
    """The node of autograd that a parameter's gradient ends in; it lives as long as it is held."""
    view = parameter.expand_as(parameter).grad_fn
    assert view is not None, "it requires a gradient"
    return view.next_functions[0][0]


def _report(index: int, seen: Seen, counts: bool) -> Callable[[Sequence[Tensor]], None]:
    def report(gradients: Sequence[Tensor]) -> None:
        (gradient,) = gradients
        seen(index, gradient if counts else gradient.new_zeros(()))

    return report
