"""veRL's FSDP engines, both versions, with two gradients a step."""

from typing import Any

from torch import nn

from pcr_plugin.distributed import group_of, is_first_replica, ranks_of
from pcr_plugin.verl.engine import TwoGradientEngine
from pcr_plugin.verl.fsdp1_gradients import Fsdp1Gradients, flat_slices
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from pcr_plugin.verl.layout import Layout


class FsdpTwoGradientEngine(TwoGradientEngine):
    """Mixed in before the stock FSDP engine."""

    module: nn.Module
    device_mesh: Any
    checkpoint_manager: Any

    def layout(self) -> Layout:
        """One rank is one data-parallel worker; FSDP averages over ranks what veRL has
        multiplied by their number.
        """
        flat = flat_slices(self.module)
        names = [found.name for found in flat if found.trainable] or [
            name for name, p in self.module.named_parameters() if p.requires_grad
        ]
        access = Fsdp1Gradients if flat else Fsdp2Gradients
        counted = is_first_replica(self.device_mesh)
        group = group_of(self.device_mesh)
        return Layout(
            names=names,
            access=lambda blocks: access(self.module, blocks, counted),
            group=group,
            gradient_scale=1.0 / ranks_of(group),
        )

    def loss_scale(self) -> float:
        """Of veRL's gradient scaler, which it builds for fp16 alone."""
        scaler = getattr(self, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    @property
    def checkpoints(self) -> Any:
        """veRL's checkpoint manager."""
        return self.checkpoint_manager

    def on_loss(self, data: Any) -> None:
        """The loss is the last before the backward pass of the same micro-batch."""
        super().on_loss(data)
        self.announce(data)
