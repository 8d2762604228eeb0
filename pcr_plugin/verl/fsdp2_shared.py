"""Gradient access for two backward passes in every micro-batch, under FSDP2."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import Local, Part
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients, local_shard, storage_of


class Fsdp2SharedGradients(Fsdp2Gradients):
    """Implements `pcr_plugin.gradients.SharedGradients` on `parameter.grad`.

    Args:
        module: the model after `fully_shard`; an unsharded one works too.
        blocks: the scope's blocks.
        counted: whether this is the replica of the model whose shards are counted.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[Block], counted: bool = True) -> None:
        super().__init__(module, blocks, counted)
        self._leaves: dict[int, Tensor] = {}
        self._looks_for_leaves = self._counts = self._rest_is_there = False
        self._arrivals = [0] * (len(self._scope) + len(self._rest))
        # In `rest_times`: what is done with a gradient outside the scope that has just come.
        self._arrived: Callable[[Any], None] | None = None

    def nothing(self) -> list[Tensor | None]:
        """No gradients."""
        return [None] * len(self._scope)

    def begin(self) -> None:
        """The next backward pass is the step's first one."""
        super().begin()
        self._rest_is_there = False
        self._storages_of_rest = set()

    def keep_rest(self, factor: float) -> None:
        """As after a pass; what comes next is added to."""
        super().keep_rest(factor)
        self._rest_is_there = True

    def end_micro_batch(self) -> None:
        """From now on every gradient outside the scope is added to."""
        self._rest_is_there = True

    def part_of(self, module: str) -> Part:
        """The parameters of a module.

        Args:
            module: its name in the model.
        """
        prefix = f"{module}."
        return Part(
            [i for i, name in enumerate(self._names) if name.startswith(prefix)],
            [i for i, name in enumerate(self._names_of_rest) if name.startswith(prefix)],
        )

    @torch.no_grad()
    def swap(self, aside: list[Tensor | None], part: Part | None = None) -> list[Tensor | None]:
        """Exchange the gradients of the sharded parameters, which FSDP2 accumulates to."""
        held = list(aside)
        for i in range(len(aside)) if part is None else part.scope:
            held[i], self._scope[i].grad = self._scope[i].grad, aside[i]
        return held

    @torch.no_grad()
    def shards(self, aside: list[Tensor | None]) -> Local:
        """The local shards, as views."""
        return [local_shard(gradient) for gradient in aside]

    def look_for_leaves(self) -> None:
        """From the next forward pass on; see `watch`."""
        if not self._looks_for_leaves:
            self._looks_for_leaves = True
            self._find_unsharded(self._leaves.__setitem__)

    def leaves(self, part: Part | None = None) -> Sequence[Tensor]:
        """The unsharded parameters, which stay the same objects from step to step."""
        if part is None:
            return list(self._leaves.values())
        return [self._leaves[i] for i in part.scope if i in self._leaves]

    def unreached(self) -> str:
        """A parameter with a gradient whose module has not run: something else uses it."""
        missed = [
            self._names[i]
            for i, shard in enumerate(self.read())
            if i not in self._leaves and shard is not None and bool(shard.any())
        ]
        if not missed:
            return ""
        return (
            f"pcr.combine_signals did not find {', '.join(map(repr, missed))} where its module "
            "runs, but it has a gradient, whose parts would be mixed up. Set "
            "pcr.combine_signals=false."
        )

    @contextmanager
    def rest_times(self, factor: float, part: Part | None = None) -> Iterator[None]:
        """Every reduction outside the scope goes to an empty place, and from there to its sum.

        Only one layer's gradient is then there twice, for the time of an addition.
        """
        self._watch_storage()
        # Until a layer's gradients outside the scope have a place, those in the scope share it.
        self._in_second_pass = self._rest_is_there
        places = self._rest if part is None else [self._rest[i] for i in part.rest]
        sums = {p: p.grad for p in places}

        def arrived(p: Any) -> None:
            new, own = local_shard(p.grad), local_shard(sums[p])
            assert new is not None
            if own is None:
                new.mul_(factor)
                sums[p] = p.grad
                self._storages_of_rest.add(storage_of(new))
            else:
                own.add_(new, alpha=factor)
            p.grad = None

        for p in places:
            p.grad = None
        self._arrived = arrived
        try:
            yield
        finally:
            self._arrived = None
            for p, own in sums.items():
                p.grad = own
            # From now on those in the scope need one of their own.
            self._in_second_pass = True

    def count_arrivals(self) -> None:
        """From now on; see `arrivals`."""
        self._arrivals = [0] * len(self._arrivals)
        if not self._counts:
            self._counts = True
            for index, p in enumerate((*self._scope, *self._rest)):
                p.register_post_accumulate_grad_hook(partial(self._came, index))

    def arrivals(self) -> int:
        """A number that differs, but for chance, where another gradient has come, or another time.

        FSDP2 reduces what a layer's parameters have on this rank. Where that is not the same on
        all ranks, it adds up gradients of different parameters.
        """
        return zlib.crc32(repr(self._arrivals).encode())

    @torch.no_grad()
    def _came(self, index: int, parameter: Tensor) -> None:
        self._arrivals[index] += 1
        if self._arrived is not None and index >= len(self._scope):
            _wait_for_copy(parameter)
            self._arrived(parameter)


def _wait_for_copy(parameter: Tensor) -> None:
    """Until a gradient that is offloaded is on the CPU, where the next line reads it.

    FSDP2 of torch before 2.13 queues the copy and calls the hook at once, in the same stream.
    """
    shard = local_shard(parameter.grad)
    if shard is not None and shard.device.type == "cpu" and torch.accelerator.is_available():
        torch.accelerator.current_stream().synchronize()
