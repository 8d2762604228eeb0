"""Gradient access on this rank's parts of what DeepSpeed has reduced."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import Local, Seen
from pcr_plugin.openrlhf.slots import Slots


class ZeroGradients:
    """Implements `pcr_plugin.gradients.Gradients` on one stage's slots.

    What is outside the scope is kept here between backward passes, since DeepSpeed's own
    accumulation cannot take two of them in one micro-batch.

    Args:
        slots: where the gradients are.
        blocks: the scope's blocks, of names that the slots have.
    """

    def __init__(self, slots: Slots, blocks: Sequence[Block]) -> None:
        self._slots = slots
        place = {name: index for index, name in enumerate(slots.names)}
        owners = [(name, block) for block, b in enumerate(blocks) for name in b.parameters]
        self._names = [name for name, _ in owners]
        self._block_of = [block for _, block in owners]
        self._scope = [place[name] for name in self._names]
        inside = set(self._scope)
        self._rest = [index for index in range(len(slots.names)) if index not in inside]
        self._now: Local | None = None
        self._aside: Local = []
        self.begin()

    @property
    def names(self) -> Sequence[str]:
        """Name of every in-scope parameter."""
        return self._names

    @property
    def block_of(self) -> Sequence[int]:
        """Block of every in-scope parameter."""
        return self._block_of

    @property
    def counted(self) -> Sequence[bool]:
        """All, but with ZeRO-0 those of one rank alone."""
        return [self._slots.counted] * len(self._block_of)

    @property
    def device(self) -> torch.device:
        """Where the slots are."""
        return self._slots.device

    def watch(self, seen: Seen) -> None:
        """Report what autograd computes on this rank, before DeepSpeed reduces it."""
        for index, place in enumerate(self._scope):
            self._slots.parameters[place].register_hook(_report(index, seen))

    def _present(self) -> Local:
        if self._now is None:
            self._now = self._slots.collect()
        return self._now

    def read(self) -> Local:
        """This rank's parts in the scope, as the next `hand_over` will give them."""
        present = self._present()
        return [present[index] for index in self._scope]

    def begin(self) -> None:
        """Forget what a step that ended with an error has left here."""
        self._now, self._aside = None, [None] * len(self._slots.names)

    def take(self) -> Local:
        """Move the scope's gradients out of the slots."""
        taken, present = self.read(), self._present()
        for index in self._scope:
            present[index] = None
        return taken

    @torch.no_grad()
    def add(self, taken: Local, factors: Sequence[float]) -> None:
        """Add taken gradients, times one factor each, to those that are there."""
        present = self._present()
        for index, shard, factor in zip(self._scope, taken, factors, strict=True):
            _add(present, index, shard, factor)

    @torch.no_grad()
    def keep_rest(self, factor: float) -> None:
        """Set aside what is outside the scope; the slots are then free for another pass."""
        present = self._present()
        for index in self._rest:
            _add(self._aside, index, present[index], factor)
        self._now = None

    def finish_rest(self) -> None:
        """The host then has nothing but what was set aside."""
        self._now, self._aside = self._aside, [None] * len(self._slots.names)

    def hand_over(self) -> None:
        """Give the optimizer what is here now."""
        self._slots.put(self._present())
        self._now = None


def _add(held: Local, index: int, shard: Tensor | None, factor: float) -> None:
    if shard is None:
        return
    present = held[index]
    held[index] = shard * factor if present is None else present.add_(shard, alpha=factor)


def _report(index: int, seen: Seen) -> Callable[[Tensor], None]:
    def report(gradient: Tensor) -> None:
        seen(index, gradient)

    return report
