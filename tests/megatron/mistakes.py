"""Mistakes that an engine on Megatron-core could make, each put into the product code on purpose.

The comparison with the oracle must notice every one of them: `test_mistakes`. To add one, write a
context manager and extend `MISTAKES`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

Mistake = Callable[[], AbstractContextManager[None]]


@contextmanager
def dots_over_whole_buffers() -> Iterator[None]:
    """With a distributed optimizer what a rank does not own is stale: not reduced over ranks."""

    def whole(part: Any) -> Any:
        distance = part.parameter.main_grad.data_ptr() - part.bucket.grad_data.data_ptr()
        start = distance // part.bucket.grad_data.element_size()
        return replace(part, owned=slice(start, start + part.parameter.numel()))

    with _every_slice(whole):
        yield


@contextmanager
def copies_counted() -> Iterator[None]:
    """What tensor-parallel ranks share, and hold in equal copies, is counted on each of them."""
    with _every_slice(lambda part: replace(part, in_model=True, counted=True)):
        yield


@contextmanager
def replicas_counted() -> Iterator[None]:
    """Without a distributed optimizer data-parallel ranks hold the same reduced gradients."""
    with _every_slice(lambda part: replace(part, counted=part.in_model)):
        yield


@contextmanager
def last_embedding_counted() -> Iterator[None]:
    """A tied embedding is on the last pipeline stage, too."""

    def everywhere(part: Any) -> Any:
        if not getattr(part.parameter, "shared", False):
            return part
        return replace(part, in_model=True, counted=True)

    with _every_slice(everywhere):
        yield


@contextmanager
def nothing_zeroed() -> Iterator[None]:
    """A pass starts with what the pass before has left in the buffers."""
    from pcr_plugin.verl.megatron_gradients import MegatronGradients

    keep_rest = MegatronGradients.keep_rest

    @torch.no_grad()
    def keeping(self: Any, factor: float) -> None:
        buffers = [buffer for chunk in self._chunks for buffer in chunk.buffers]
        left = [buffer.grad_data.clone() for buffer in buffers]
        keep_rest(self, factor)
        for buffer, values in zip(buffers, left, strict=True):
            buffer.grad_data.copy_(values)

    with patch.object(MegatronGradients, "keep_rest", keeping):
        yield


@contextmanager
def hooks_not_scaled() -> Iterator[None]:
    """Hooks see gradients before the average over data-parallel ranks."""
    with _layout(gradient_scale=1.0):
        yield


@contextmanager
def order_ignored() -> Iterator[None]:
    """A pipeline has several micro-batches under way: the last announced is not the one whose
    backward pass runs. What the estimator notices of it itself is silenced.
    """
    from pcr_plugin.estimators import MicroBatchEstimator

    silent = patch.object(MicroBatchEstimator, "_came_twice", lambda self, seen: "")
    with _layout(in_order=False), silent:
        yield


@contextmanager
def order_ignored_aloud() -> Iterator[None]:
    """The same with the estimator's own check. The last stage has one micro-batch at a time under
    way and notices nothing; the first one's error must end both.
    """
    with _layout(in_order=False):
        yield


@contextmanager
def units_of_experts_apart() -> Iterator[None]:
    """An expert's gradient on a rank is taken for that of this rank's own micro-batch."""
    with _layout(merged=None):
        yield


@contextmanager
def auxiliary_losses_twice() -> Iterator[None]:
    """The KL pass has them, too."""
    with _extras(stability_pass=lambda self: self.unseen()):
        yield


@contextmanager
def auxiliary_losses_in_p() -> Iterator[None]:
    """The surrogate's pass has them, and there is no other: right in sum, but p is another."""
    with (
        _extras(plasticity_pass=lambda self, last: self._bias_moves(last)),
        _layout_extras(has_losses=False),
    ):
        yield


@contextmanager
def bias_moved_in_every_pass() -> Iterator[None]:
    """The experts' bias moves after the KL pass, too, which routes as the surrogate does."""
    with _extras(stability_pass=lambda self: self._without_losses()):
        yield


@contextmanager
def bias_moved_in_every_half() -> Iterator[None]:
    """With the tokens of that half."""
    from pcr_plugin.verl.megatron_extras import MegatronExtras

    once = MegatronExtras.plasticity_pass
    with _extras(plasticity_pass=lambda self, last: once(self, last=True)):
        yield


@contextmanager
def bias_moved_in_the_auxiliary_pass() -> Iterator[None]:
    """The surrogate's pass then routes with another bias."""
    with _extras(auxiliary_pass=lambda self: nullcontext()):
        yield


@contextmanager
def observed_passes_remembered() -> Iterator[None]:
    """The tokens of passes that only measure are counted for the experts' bias."""
    with _extras(unseen=lambda self: nullcontext()):
        yield


MISTAKES: dict[str, Mistake] = {
    mistake.__name__: mistake
    for mistake in (
        dots_over_whole_buffers,
        copies_counted,
        replicas_counted,
        last_embedding_counted,
        nothing_zeroed,
        hooks_not_scaled,
        order_ignored,
        order_ignored_aloud,
        units_of_experts_apart,
        auxiliary_losses_twice,
        auxiliary_losses_in_p,
        bias_moved_in_every_pass,
        bias_moved_in_every_half,
        bias_moved_in_the_auxiliary_pass,
        observed_passes_remembered,
    )
}


def mistake_of(case: Any) -> AbstractContextManager[None]:
    """The mistake that a case is run with; none in most."""
    name = getattr(case, "mistake", None)
    return nullcontext() if name is None else MISTAKES[name]()


def _every_slice(change: Callable[[Any], Any]) -> Any:
    """Change what the gradients' access learns of every parameter."""
    from pcr_plugin.verl import megatron_gradients

    slices = megatron_gradients.buffer_slices
    return patch.object(
        megatron_gradients, "buffer_slices", lambda chunks: [change(p) for p in slices(chunks)]
    )


def _layout(**changes: Any) -> Any:
    """Change what the engine says of its layout."""
    from pcr_plugin.verl.megatron_engine import MegatronTwoGradientEngine

    layout = MegatronTwoGradientEngine.layout
    return patch.object(
        MegatronTwoGradientEngine, "layout", lambda self: replace(layout(self), **changes)
    )


def _extras(**changes: Any) -> Any:
    """Change what is done around a pass."""
    from pcr_plugin.verl.megatron_extras import MegatronExtras

    return patch.multiple(MegatronExtras, **changes)


def _layout_extras(**attributes: Any) -> Any:
    """Change what the engine believes of its model."""
    from pcr_plugin.verl.megatron_engine import MegatronTwoGradientEngine

    layout = MegatronTwoGradientEngine.layout

    def changed(self: Any) -> Any:
        found = layout(self)
        for name, value in attributes.items():
            setattr(found.extras, name, value)
        return found

    return patch.object(MegatronTwoGradientEngine, "layout", changed)
