"""Where DeepSpeed leaves a reduced gradient, and where its optimizer looks for one.

DeepSpeed adds up micro-batches in places that a second backward pass in one micro-batch would
overwrite (ZeRO-1 and 2 assign at an accumulation boundary). So every backward pass is an
accumulation boundary of its own: it reduces, what it leaves is copied out, and the slot is
emptied. Only the combined gradient of the whole step is put back.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor


class Slots(Protocol):
    """This rank's part of the gradient of every trainable parameter, one stage of ZeRO each."""

    @property
    def names(self) -> Sequence[str]:
        """Trainable parameters in the model's order, the same on every rank."""
        ...

    @property
    def parameters(self) -> Sequence[Any]:
        """The same, as autograd knows them."""
        ...

    @property
    def counted(self) -> bool:
        """Whether this rank's shards enter sums over all ranks; one of several copies does."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the shards are: on the CPU with an offloaded optimizer."""
        ...

    def expect(self) -> None:
        """Before a backward pass: what it computes replaces what is in the slots."""
        ...

    def collect(self) -> list[Tensor | None]:
        """After it: float32 copies of the shards, flat; the slots are empty afterwards.

        `None` where this rank has no part of the parameter, or there was no gradient.
        """
        ...

    def put(self, shards: Sequence[Tensor | None]) -> None:
        """Give the optimizer the step's gradient.

        Args:
            shards: in the form of `collect`; `None` counts as zeros.
        """
        ...

    def untouched(self) -> AbstractContextManager[None]:
        """In it the slots are empty; afterwards they, and what counts passes, are as before.

        For passes in the middle of a window in which DeepSpeed adds up gradients of its own.
        """
        ...


class OfEngine:
    """What the slots of all stages have in common.

    Args:
        engine: DeepSpeed's engine.
    """

    def __init__(self, engine: Any) -> None:
        named = [(n, p) for n, p in engine.module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self._engine = engine
        self._optimizer = engine.optimizer
        self._index = {id(parameter): i for i, parameter in enumerate(self.parameters)}

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Gradients of the parameters, and whether a pass is an accumulation boundary."""
        boundary = self._engine._is_gradient_accumulation_boundary
        gradients = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            self._engine._is_gradient_accumulation_boundary = boundary


@contextmanager
def restored(owner: Any, names: Sequence[str]) -> Iterator[None]:
    """Around a change of attributes, which afterwards are what they were.

    Args:
        owner: of the attributes.
        names: of those that it has.
    """
    kept = {name: getattr(owner, name) for name in names}
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(owner, name, value)


@contextmanager
def set_aside(gradients: dict[int, Any]) -> Iterator[None]:
    """In it a dictionary is empty; the object stays, since DeepSpeed hands it on.

    Args:
        gradients: of DeepSpeed, by group.
    """
    kept = dict(gradients)
    gradients.clear()
    try:
        yield
    finally:
        gradients.clear()
        gradients.update(kept)


@contextmanager
def written_back(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Around writing to tensors in place.

    Args:
        tensors: those whose values come back.
    """
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in zip(tensors, kept, strict=True):
                tensor.copy_(values)


def copied(gradient: Tensor) -> Tensor:
    """A flat float32 copy, whatever the gradient was reduced in."""
    return gradient.detach().flatten().to(torch.float32, copy=True)
