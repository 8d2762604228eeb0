"""What a host framework offers: this rank's gradient shards, in and out of the scope."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

# One entry per in-scope parameter: its local shard, which may be empty, or None without gradient.
Local = list[Tensor | None]
# Gets the index of a parameter and its whole gradient on this rank, of one micro-batch.
Seen = Callable[[int, Tensor], None]


class Gradients(Protocol):
    """Access to the gradients that a backward pass of the host has left.

    The order of the parameters is fixed and the same in every method; `block_of[i]` is the
    block of parameter i and `names[i]` its name.
    """

    @property
    def names(self) -> Sequence[str]:
        """Name of every in-scope parameter, for messages."""
        ...

    @property
    def block_of(self) -> Sequence[int]:
        """Block of every in-scope parameter."""
        ...

    @property
    def counted(self) -> Sequence[bool]:
        """Whether this rank's shard of a parameter enters sums over all ranks.

        False where another rank holds the same: a replica of the model, or of the parameter.
        """
        ...

    @property
    def device(self) -> torch.device:
        """Where the gradients are after a pass; with offloading not where they are computed."""
        ...

    def watch(self, seen: Seen) -> None:
        """Report every gradient that autograd computes, before it is reduced or accumulated.

        Args:
            seen: called once in every backward pass that reaches the parameter, until the end.
        """
        ...

    def read(self) -> Local:
        """The local shards in the scope. Views: writing to them changes the gradient."""
        ...

    def begin(self) -> None:
        """Before the first pass: forget what a step that ended with an error has set aside."""
        ...

    def take(self) -> Local:
        """Move the in-scope gradients out: the host then has none there, or zeros.

        Without a copy where a gradient is a tensor of its own.
        """
        ...

    def add(self, taken: Local, factors: Sequence[float]) -> None:
        """Add gradients that were taken, times one factor each, to those that are there now.

        `taken` is not changed and nothing of it is aliased.
        """
        ...

    def keep_rest(self, factor: float) -> None:
        """Prepare for another pass: what is outside the scope now, times a factor, stays.

        Called after `take`, with several passes more than once. Where the host accumulates passes
        rightly the gradients stay in place; otherwise they are set aside until `finish_rest`.
        """
        ...

    def finish_rest(self) -> None:
        """After the last pass: add outside the scope what `keep_rest` has set aside."""
        ...
