"""veRL's Megatron engine with two gradients a step."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.distributed import gather_lists, group_of_all, on_any
from pcr_plugin.verl import checkpoint, host
from pcr_plugin.verl.engine import TwoGradientEngine
from pcr_plugin.verl.layout import Layout
from pcr_plugin.verl.megatron_experts import merged_units
from pcr_plugin.verl.megatron_extras import MegatronExtras
from pcr_plugin.verl.megatron_fusion import forgo_fusion
from pcr_plugin.verl.megatron_gradients import MegatronGradients, are_finite
from pcr_plugin.verl.megatron_linear_layers import megatron_linear_layers, sequence_ranks
from pcr_plugin.verl.megatron_random import Generators
from pcr_plugin.verl.megatron_rows import rows_of_tokens
from pcr_plugin.verl.megatron_slices import buffer_slices
from pcr_plugin.verl.refusals_megatron import check_buffers, check_transformer, check_watched

logger = logging.getLogger(__name__)


class MegatronTwoGradientEngine(TwoGradientEngine):
    """Mixed in before the stock Megatron engine."""

    module: list[Any]
    optimizer: Any
    tf_config: Any
    engine_config: Any
    model_config: Any
    checkpoint_mananager: Any

    def _build_tf_config(self) -> None:
        """veRL's own, of overrides without what its bridge would switch on by itself."""
        forgo_fusion(self.engine_config, self._rule)
        super()._build_tf_config()  # type: ignore[misc]

    def layout(self) -> Layout:
        """Parts of a layer are on tensor-parallel ranks and layers on pipeline stages; the group
        is all of them and their replicas.
        """
        from megatron.core import parallel_state as mpu

        host.check_megatron_core()
        check_transformer(self.tf_config, self._rule)
        check_buffers(self.module)
        group = group_of_all()
        parts = buffer_slices(self.module)
        names = gather_lists([part.name for part in parts], group)
        mtp = self.model_config.mtp
        predicts = bool(self.tf_config.mtp_num_layers) and mtp.enable and mtp.enable_train
        extras = MegatronExtras(self.module, self.tf_config, predicts=predicts)
        if extras.has_losses:
            logger.warning(
                "pcr-plugin: the model adds losses of its own (%s): every step has a third pass, "
                "of these alone",
                ", ".join(extras.losses),
            )
        replicas = mpu.get_data_parallel_world_size(with_context_parallel=True)
        return Layout(
            # Layers that predict later tokens have neither objective's gradient.
            names=[name for name in names if not name.startswith("mtp.")],
            access=self._access,
            group=group,
            linear_layers=lambda found: megatron_linear_layers(
                self.module, found.names, found.parameters
            ),
            sequence_ranks=sequence_ranks,
            # Megatron-core averages over data-parallel ranks what veRL has multiplied by them.
            gradient_scale=1.0 / replicas,
            in_order=True,
            # All ranks of a pipeline and of a tensor-parallel group have the same micro-batches.
            counts_units=mpu.get_model_parallel_group().rank() == 0,
            merged=merged_units(parts, self._rule),
            extras=extras,
        )

    def forward_step(self, batch_iter: Iterator[Any], model: Any, *rest: Any, **named: Any) -> Any:
        """The stock step; every pipeline stage learns of the micro-batch, not the last alone."""
        batch = next(batch_iter)
        if model is self.module[0] and torch.is_grad_enabled():
            self.announce(batch)
        return super().forward_step(iter([batch]), model, *rest, **named)  # type: ignore[misc]

    def optimizer_step(self) -> float:
        """The stock step; one along what is not finite is skipped on all ranks, as FSDP's is.

        Megatron-core looks for such gradients under fp16 alone, and would lose the weights.
        """
        stock = self._rule.observes or self.tf_config.fp16
        if stock or not on_any(not are_finite(self.module), self._group, self._device):
            return super().optimizer_step()
        logger.warning("pcr-plugin: the gradient is not finite; this step is skipped")
        self._update.forget_step()
        return math.nan

    def rows_of_tokens(self, data: Any) -> Tensor:
        """The rows as veRL's own code pads or packs, and slices, their tokens."""
        from megatron.core.utils import unwrap_model

        layout = self._get_context_parallel_layout(  # type: ignore[attr-defined]
            unwrap_model(self.module[0])
        )
        return rows_of_tokens(data, self.engine_config, self.tf_config, layout)

    def generators(self) -> Generators:
        """Of the device and of Megatron-core's tracker."""
        return Generators(super().generators())

    def loss_scale(self) -> float:
        """Of Megatron-core's optimizer; 1 unless the parameters are fp16."""
        return float(self.optimizer.get_loss_scale())

    @property
    def checkpoints(self) -> Any:
        """veRL's checkpoint manager, which its engine spells in its own way."""
        return self.checkpoint_mananager

    def check_checkpoint(self, folder: str) -> None:
        """Refuse by name what veRL cannot load here.

        Raises:
            ValueError: it was written with other model-parallel sizes.
        """
        names = ("tensor_model_parallel_size", "pipeline_model_parallel_size")
        if self.checkpoints.should_load_extra:
            sizes = {name: getattr(self.tf_config, name) for name in names}
            checkpoint.check_model_parallel(folder, sizes)

    def _access(self, blocks: Any) -> MegatronGradients:
        check_watched(self.module, blocks, self._rule, self.tf_config)
        return MegatronGradients(self.module, blocks)
