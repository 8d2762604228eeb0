"""ZeRO-0: every rank has the whole gradient, in `parameter.grad`, and all have the same."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.distributed import group_of_all, is_first_of
from pcr_plugin.openrlhf.slots import OfEngine, copied


class ReplicatedSlots(OfEngine):
    """Implements `Slots` on the gradients of the parameters.

    Args:
        engine: DeepSpeed's engine.
    """

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.counted = is_first_of(group_of_all())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.parameters[0].device
        return device

    def expect(self) -> None:
        """`collect` has left no gradient that a pass could add to."""

    @torch.no_grad()
    def collect(self) -> list[Tensor | None]:
        """Copy the gradients, and take them away from their parameters."""
        shards = [None if p.grad is None else copied(p.grad) for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        return shards

    @torch.no_grad()
    def put(self, shards: Sequence[Tensor | None]) -> None:
        """Give every parameter a gradient of its own type, which autograd insists on."""
        for parameter, shard in zip(self.parameters, shards, strict=True):
            if shard is not None:
                parameter.grad = shard.to(parameter.dtype).view_as(parameter)
