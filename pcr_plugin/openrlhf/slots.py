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


def trainable(engine: Any) -> list[tuple[str, Any]]:
    """Names, as the model has them, and parameters.

    Args:
        engine: DeepSpeed's engine.
    """
    named = engine.module.named_parameters()
    return [(name, parameter) for name, parameter in named if parameter.requires_grad]


def copied(gradient: Tensor) -> Tensor:
    """A flat float32 copy, whatever the gradient was reduced in."""
    return gradient.detach().flatten().to(torch.float32, copy=True)
