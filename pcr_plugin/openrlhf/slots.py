"""Where DeepSpeed leaves a reduced gradient, and where its optimizer looks for one.

DeepSpeed adds up micro-batches in places that a second backward pass in one micro-batch would
overwrite (ZeRO-1 and 2 assign at an accumulation boundary). So every backward pass is an
accumulation boundary of its own: it reduces, what it leaves is copied out, and the slot is
emptied. Only the combined gradient of the whole step is put back.
"""

from collections.abc import Sequence
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


class OfEngine:
    """What the slots of all stages have in common.

    Args:
        engine: DeepSpeed's engine.
    """

    def __init__(self, engine: Any) -> None:
        named = [(n, p) for n, p in engine.module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self._optimizer = engine.optimizer
        self._index = {id(parameter): i for i, parameter in enumerate(self.parameters)}


def copied(gradient: Tensor) -> Tensor:
    """A flat float32 copy, whatever the gradient was reduced in."""
    return gradient.detach().flatten().to(torch.float32, copy=True)
