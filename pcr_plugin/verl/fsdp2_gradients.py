"""Gradient access for modules sharded by FSDP2, whose gradients are DTensors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import Local


class Fsdp2Gradients:
    """Implements `pcr_plugin.gradients.Gradients` on `parameter.grad`.

    Args:
        module: the model after `fully_shard`; an unsharded one works too.
        blocks: the scope's blocks.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[Block]) -> None:
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        owners = [(name, i) for i, block in enumerate(blocks) for name in block.parameters]
        inside = {name for name, _ in owners}
        self._scope = [named[name] for name, _ in owners]
        self._rest = [p for name, p in named.items() if name not in inside]
        self.names = [name for name, _ in owners]
        self._block_of = [block for _, block in owners]

    @property
    def block_of(self) -> Sequence[int]:
        """Block of every in-scope parameter."""
        return self._block_of

    @property
    def device(self) -> torch.device:
        """Where the local shards live."""
        return self._scope[0].device

    @torch.no_grad()
    def read(self) -> Local:
        """The local shards in the scope, as views."""
        return [_local(p.grad) for p in self._scope]

    @torch.no_grad()
    def take(self) -> Local:
        """Move the in-scope gradients out, without a copy."""
        taken = self.read()
        for p in self._scope:
            p.grad = None
        return taken

    @torch.no_grad()
    def add(self, taken: Local, factors: Sequence[float]) -> None:
        """Add taken gradients, times one factor each, to those that are there."""
        for p, shard, factor in zip(self._scope, taken, factors, strict=True):
            if shard is None:
                continue
            if p.grad is None:
                p.grad = _like(p, shard * factor)
            else:
                local = _local(p.grad)
                assert local is not None
                local.add_(shard, alpha=factor)

    @torch.no_grad()
    def scale_rest(self, factor: float) -> None:
        """Multiply the gradients outside the scope."""
        for p in self._rest:
            if p.grad is not None:
                p.grad.mul_(factor)


def _local(gradient: Tensor | None) -> Tensor | None:
    if isinstance(gradient, DTensor):
        local: Tensor = gradient.to_local()
        return local
    return gradient


def _like(parameter: Tensor, shard: Tensor) -> Tensor:
    """A gradient for `parameter` from its local shard."""
    if not isinstance(parameter, DTensor):
        return shard
    layout: dict[str, Any] = {"shape": parameter.shape, "stride": parameter.stride()}
    return DTensor.from_local(
        shard, parameter.device_mesh, parameter.placements, run_check=False, **layout
    )
