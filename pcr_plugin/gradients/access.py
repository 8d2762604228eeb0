"""What a host framework offers: this rank's gradient shards, in and out of the scope."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

# One entry per in-scope parameter: its local shard, which may be empty, or None without gradient.
Local = list[Tensor | None]


class Gradients(Protocol):
    """Access to the gradients that a backward pass of the host has left.

    The order of the parameters is fixed and the same in every method; `block_of[i]` is the
    block of parameter i.
    """

    @property
    def block_of(self) -> Sequence[int]:
        """Block of every in-scope parameter."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the local shards live."""
        ...

    def read(self) -> Local:
        """The local shards in the scope. Views: writing to them changes the gradient."""
        ...

    def take(self) -> Local:
        """Move the in-scope gradients out, without a copy; the host then has none there."""
        ...

    def add(self, taken: Local, factors: Sequence[float]) -> None:
        """Add gradients that were taken, times one factor each, to those that are there now.

        `taken` is not changed and nothing of it is aliased.
        """
        ...

    def scale_rest(self, factor: float) -> None:
        """Multiply the gradients outside the scope."""
        ...
