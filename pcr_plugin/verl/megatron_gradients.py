"""Gradient access for Megatron-core, whose gradients live in flat buffers.

Another pass would reduce over ranks what an earlier pass has left in the buffers, so between
passes everything is set aside and the buffers are zeroed: of every bucket the part that is valid
here, which with the distributed optimizer is 1 / data-parallel ranks of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import Local, Seen
from pcr_plugin.verl.megatron_slices import BufferSlice, buffer_slices


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
        self._rest = [part for part in found if part.name not in block_of]
        self._block_of = [block_of[part.name] for part in self._scope]
        self._watched: list[Any] = []
        self._aside: list[Tensor] | None = None

    @property
    def names(self) -> Sequence[str]:
        """Names of the in-scope parameters that this rank has a part of."""
        return [part.name for part in self._scope]

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
        return [_gradient(part) for part in self._scope]

    @torch.no_grad()
    def take(self) -> Local:
        """Copy the owned slices in the scope; `keep_rest` zeroes the buffers."""
        return [_gradient(part).clone() for part in self._scope]

    @torch.no_grad()
    def add(self, taken: Local, factors: Sequence[float]) -> None:
        """Add taken gradients, times one factor each, to those that are there."""
        for part, values, factor in zip(self._scope, taken, factors, strict=True):
            assert values is not None, "every parameter has a place in a buffer"
            _gradient(part).add_(values, alpha=factor)

    @torch.no_grad()
    def keep_rest(self, factor: float) -> None:
        """Set aside what is outside the scope, on top of what already is, and zero everything."""
        rest = [_gradient(part).mul(factor) for part in self._rest]
        if self._aside is not None:
            for values, earlier in zip(rest, self._aside, strict=True):
                values.add_(earlier)
        self._aside = rest
        for chunk in self._chunks:
            chunk.zero_grad_buffer()

    @torch.no_grad()
    def finish_rest(self) -> None:
        """Bring it back; nothing outlives the step, whose buffers may be offloaded after it."""
        for part, values in zip(self._rest, self._aside or [], strict=self._aside is not None):
            _gradient(part).add_(values)
        self._aside = None


def _gradient(part: BufferSlice) -> Tensor:
    # Looked up every time: offloading frees and refills the storage.
    gradient: Tensor = part.bucket.grad_data[part.owned]
    return gradient


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
