"""Gradients outside of the scope, while another pass of Megatron-core fills the same buffers.

A pass ends with a reduction over data-parallel ranks: it multiplies a bucket by a factor and adds
up what all ranks have in it. So most of these gradients stay where they are and cost no memory:
one rank leaves its value, divided by that factor, the others leave zeros, and after the next pass
every owner has the value again, plus the gradient of that pass.

Of what tensor-parallel ranks hold in copies (norms, routers) Megatron-core adds up some copies once
more; these are small and are set aside.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pcr_plugin.verl.megatron_slices import BufferSlice, gradient_of


class Rest:
    """Keeps gradients over passes.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules, one per virtual pipeline stage.
        parts: this rank's slices outside of the scope.
    """

    def __init__(self, chunks: Sequence[Any], parts: Sequence[BufferSlice]) -> None:
        groups = [g for c in chunks for g in (*c.bucket_groups, *c.expert_parallel_bucket_groups)]
        self._buckets = [bucket for group in groups for bucket in group.buckets]
        # Which gradients are ready to be reduced is counted anew in every pass.
        self._count_anew = [group.reset for group in groups]
        self._staying: dict[int, list[BufferSlice]] = {}
        for part in parts:
            if part.left and part.owned.start < part.owned.stop:
                self._staying.setdefault(id(part.bucket), []).append(part)
        self._in_copies = [part for part in parts if part.left is None]
        self._aside: list[Tensor] | None = None

    def begin(self) -> None:
        """Give up what an earlier step, which ended with an error, has set aside."""
        self._aside = None

    def keep(self, factor: float) -> None:
        """Make the buffers ready for another pass.

        Args:
            factor: to multiply the gradients by that are kept, of all passes so far.
        """
        aside = [gradient_of(part).mul(factor) for part in self._in_copies]
        for values, earlier in zip(aside, self._aside or [], strict=self._aside is not None):
            values.add_(earlier, alpha=factor)
        self._aside = aside
        for bucket in self._buckets:
            _leave(bucket.grad_data, self._staying.get(id(bucket), []), factor)
        for count_anew in self._count_anew:
            count_anew()

    def finish(self) -> None:
        """Bring back what was set aside; nothing outlives the step."""
        for part, values in zip(self._in_copies, self._aside or [], strict=self._aside is not None):
            gradient_of(part).add_(values)
        self._aside = None


def _leave(bucket: Tensor, parts: Sequence[BufferSlice], factor: float) -> None:
    """Scale the parts and zero what is between them: the scope's, stale elements, padding."""
    end = 0
    for part in sorted(parts, key=lambda part: part.owned.start):
        assert part.left is not None and part.owned.start >= end
        bucket[end : part.owned.start].zero_()
        bucket[part.owned].mul_(factor * part.left)
        end = part.owned.stop
    bucket[end:].zero_()
