"""Gradient access for two backward passes in every micro-batch, under FSDP2."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import Local
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients, local_shard


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
        self._looks_for_leaves = self._watches_rest = False
        # In `rest_times`: what is done with a gradient outside the scope that has just come.
        self._arrived: Callable[[Any], None] | None = None

    def nothing(self) -> list[Tensor | None]:
        """No gradients."""
        return [None] * len(self._scope)

    @torch.no_grad()
    def swap(self, aside: list[Tensor | None]) -> list[Tensor | None]:
        """Exchange the gradients of the sharded parameters, which FSDP2 accumulates to."""
        held = [p.grad for p in self._scope]
        for p, gradient in zip(self._scope, aside, strict=True):
            p.grad = gradient
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

    def leaves(self) -> Sequence[Tensor]:
        """The unsharded parameters, which stay the same objects from step to step."""
        return list(self._leaves.values())

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
    def rest_times(self, factor: float) -> Iterator[None]:
        """Every reduction outside the scope goes to an empty place, and from there to its sum.

        Only one layer's gradient is then there twice, for the time of an addition.
        """
        self._watch_storage()
        self._watch_rest()
        sums = {p: p.grad for p in self._rest}
        come = set()

        def arrived(p: Any) -> None:
            if p in come:
                raise RuntimeError("a gradient outside the scope came twice in one backward pass")
            come.add(p)
            new, own = local_shard(p.grad), sums[p]
            assert new is not None
            if own is None:
                new.mul_(factor)
            else:
                local_shard(own).add_(new, alpha=factor)  # type: ignore[union-attr]
                p.grad = own

        for p in self._rest:
            p.grad = None
        self._arrived = arrived
        try:
            yield
        finally:
            self._arrived = None
            for p, own in sums.items():
                if p not in come:
                    p.grad = own
            # From now on those outside have a place, and those in the scope need one of their own.
            self._in_second_pass = True

    def _watch_rest(self) -> None:
        if not self._watches_rest:
            self._watches_rest = True
            for p in self._rest:
                p.register_post_accumulate_grad_hook(self._came)

    @torch.no_grad()
    def _came(self, parameter: Tensor) -> None:
        if self._arrived is not None:
            self._arrived(parameter)
