"""What a host framework offers: this rank's gradient shards, in and out of the scope."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# One entry per in-scope parameter: its local shard, which may be empty, or None without gradient.
Local = list[Tensor | None]
# Gets the index of a parameter and its whole gradient on this rank, of one micro-batch.
Seen = Callable[[int, Tensor], None]


class Part(NamedTuple):
    """Some of the parameters, those of one layer for example, by their places in the host's lists.

    Attributes:
        scope: of those in the scope.
        rest: of those outside.
    """

    scope: Sequence[int]
    rest: Sequence[int]


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


class SharedGradients(Gradients, Protocol):
    """Access for two backward passes in every micro-batch."""

    def nothing(self) -> list[Tensor | None]:
        """What `swap` takes where there are no gradients yet."""
        ...

    def swap(self, aside: list[Tensor | None], part: Part | None = None) -> list[Tensor | None]:
        """Put other gradients in the place of those in the scope, without a copy.

        The host's own tensors: `shards` has the local parts of them.

        Args:
            aside: what takes the place, as an earlier call returned it.
            part: whose gradients are exchanged; by default all.

        Returns:
            What was there; outside of the part, `aside`.
        """
        ...

    def shards(self, aside: list[Tensor | None]) -> Local:
        """The local shards of what `swap` returned."""
        ...

    def look_for_leaves(self) -> None:
        """Before the first forward pass after which `leaves` is called."""
        ...

    def leaves(self, part: Part | None = None) -> Sequence[Tensor]:
        """What autograd computes the gradients of, in the scope: those that have been used.

        Args:
            part: of these parameters; by default of all.
        """
        ...

    def unreached(self) -> str:
        """Why `leaves` has not been all of the scope, with the remedy; empty if it was."""
        ...

    def count_arrivals(self) -> None:
        """Before a step's first pass."""
        ...

    def arrivals(self) -> int:
        """What must be the same on all ranks for their gradients to have been added up rightly."""
        ...

    def rest_times(self, factor: float, part: Part | None = None) -> AbstractContextManager[None]:
        """In it, what comes to the gradients outside the scope is multiplied by the factor.

        Args:
            factor: the factor.
            part: that gradients come to; by default all.
        """
        ...

    def end_micro_batch(self) -> None:
        """After both backward passes of a micro-batch: there is a gradient of every parameter."""
        ...
