"""Gradient access on this rank's parts of what DeepSpeed has reduced."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import InScope, Local, Seen, reporting
from pcr_plugin.openrlhf.slots import Slots


class ZeroGradients(InScope):
    """Implements `pcr_plugin.gradients.Gradients` on one stage's slots.

    What is outside the scope is kept here between backward passes, since DeepSpeed's own
    accumulation cannot take two of them in one micro-batch.

    Args:
        slots: where the gradients are.
        blocks: the scope's blocks, of names that the slots have.
    """

    def __init__(self, slots: Slots, blocks: Sequence[Block]) -> None:
        super().__init__(slots.names, [block.parameters for block in blocks], slots.counted)
        self._slots = slots
        place = {name: index for index, name in enumerate(slots.names)}
        self._scope = [place[name] for name in self._names]
        self._rest = [place[name] for name in self._names_of_rest]
        self._now: Local | None = None
        self._aside: Local = []
        self.begin()

    @property
    def device(self) -> torch.device:
        """Where the slots are."""
        return self._slots.device

    def watch(self, seen: Seen) -> None:
        """Report what autograd computes on this rank, before DeepSpeed reduces it."""
        for index, place in enumerate(self._scope):
            self._slots.parameters[place].register_hook(reporting(index, seen))

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
        for index in self._rest if factor else ():
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
