"""The engine of the backends `pcr:<backend>`: the stock engine with two gradients a step.

Only `forward_backward_batch` differs. veRL's `train_batch` still zeroes, calls it, clips and
steps; the optimizer, the scheduler and the checkpoint are veRL's.
"""

import math
from typing import Any

import torch

from pcr_plugin.blocks import partition
from pcr_plugin.config import UpdateRule
from pcr_plugin.distributed import (
    all_ranks,
    broadcast_from_first,
    is_first_of,
    is_first_rank,
    ranks_of,
    sum_over,
)
from pcr_plugin.estimators import MicroBatchEstimator, SplitHalfEstimator
from pcr_plugin.metrics import PREFIX
from pcr_plugin.update import TwoGradientUpdate
from pcr_plugin.verl import backends, checkpoint, host
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from pcr_plugin.verl.losses import SplitLoss
from pcr_plugin.verl.outputs import Output, as_metrics, merge
from pcr_plugin.verl.passes import Passes, without_entropy
from pcr_plugin.verl.refusals import check_fsdp, check_mesh, check_model
from pcr_plugin.verl.units import Sizes, halves, sizes


class TwoGradientEngine:
    """Mixed in before a stock FSDP2 engine class of veRL.

    Raises:
        ValueError: at construction, a configuration that it cannot train; at a step, a loss
            that cannot be taken apart.
    """

    module: torch.nn.Module
    device_mesh: Any

    def __init__(self, *, engine_config: Any, model_config: Any, **arguments: Any) -> None:
        self._rule: UpdateRule = engine_config.update_rule
        # A launcher that validates nothing in the driver still cannot get past this.
        check_fsdp(engine_config)
        check_mesh(engine_config, all_ranks())
        check_model(model_config)
        # The stock engine compares its strategy with the names that it knows.
        stock = engine_config.strategy.removeprefix(backends.PREFIX)
        object.__setattr__(engine_config, "strategy", stock)
        super().__init__(  # type: ignore[call-arg]
            engine_config=engine_config, model_config=model_config, **arguments
        )
        self._steps = 0
        self._loss_agg_mode = "token-mean"
        self._half_shares = (0.5, 0.5)
        self._all_tokens: float | None = None

    def initialize(self) -> None:
        """Build the stock engine, then put the hooks on its model."""
        super().initialize()  # type: ignore[misc]
        trainable = [name for name, p in self.module.named_parameters() if p.requires_grad]
        settings = self._rule.settings
        blocks = partition(trainable, settings.scope, settings.block)
        self._gradients = Fsdp2Gradients(self.module, blocks)
        self._group = self.device_mesh.get_group()
        self._estimator = self._build_estimator(len(blocks))
        self._update = TwoGradientUpdate(
            self._rule,
            blocks,
            self._gradients,
            self._estimator,
            lambda table: sum_over(table, self._group),
            host.name("verl.utils.device", "get_torch_device")(),
            from_first_rank=lambda compute, received: broadcast_from_first(
                compute, received, self._group
            ),
        )

    def forward_backward_batch(
        self, data: Any, loss_function: Any, forward_only: bool = False
    ) -> Output:
        """Stock when `forward_only`; else leaves the combined gradient on the parameters.

        Args:
            data: this rank's mini-batch.
            loss_function: `partial(ppo_loss, config=...)`.
            forward_only: inference.

        Returns:
            The stock output with the metrics `pcr/*` added.
        """
        stock = super().forward_backward_batch  # type: ignore[misc]
        if forward_only:
            output: Output = stock(data, loss_function, forward_only=True)
            return output
        split = SplitLoss(loss_function, self._on_micro_batch)
        self._loss_agg_mode = split.config.loss_agg_mode
        self._steps += 1
        if self._rule.observes:
            return self._observe(data, loss_function, split)
        output, metrics = self._two_gradients(data, split)
        output["metrics"].update(as_metrics(metrics))
        return output

    def optimizer_step(self) -> float:
        """The stock step; a skipped one leaves the moving averages as they were."""
        norm: float = super().optimizer_step()  # type: ignore[misc]
        if not math.isfinite(norm):
            self._update.forget_step()
        return norm

    def save_checkpoint(self, local_path: str, *positional: Any, **named: Any) -> None:
        """The stock checkpoint and, beside it, the moving averages."""
        super().save_checkpoint(local_path, *positional, **named)  # type: ignore[misc]
        if is_first_rank():
            checkpoint.save(self._update.average, local_path)

    def load_checkpoint(self, local_path: str, *positional: Any, **named: Any) -> None:
        """The stock checkpoint and the moving averages."""
        checkpoint.load(self._update.average, local_path)
        super().load_checkpoint(local_path, *positional, **named)  # type: ignore[misc]

    def _build_estimator(self, blocks: int) -> MicroBatchEstimator | SplitHalfEstimator:
        gradients = self._gradients
        if self._rule.settings.variance.estimator == "split_half":
            return SplitHalfEstimator(
                gradients, blocks, lambda: self._half_shares, is_first_of(self._group)
            )
        block_of = dict(zip(gradients.names, gradients.block_of, strict=True))
        # FSDP averages over ranks what veRL has multiplied by their number.
        scale = 1.0 / ranks_of(self._group)
        return MicroBatchEstimator(self.module, block_of, blocks, scale, gradients.device)

    def _two_gradients(self, data: Any, split: SplitLoss) -> tuple[Output, dict[str, float]]:
        stock = super().forward_backward_batch  # type: ignore[misc]
        parts = self._parts(data)
        stability = Passes(stock, [without_entropy(part) for part in parts], split.stability())
        plasticity = Passes(stock, parts, split.plasticity())
        metrics = self._update.run(split.beta, stability.run, plasticity.run)
        return merge(plasticity.output(), stability.output(), split.beta), metrics

    def _observe(self, data: Any, loss_function: Any, split: SplitLoss) -> Output:
        metrics = {PREFIX + "active": 1.0}
        self._update.begin_step()
        if (self._steps - 1) % self._rule.settings.observe_every == 0:
            _, metrics = self._update.observing(lambda: self._two_gradients(data, split))
            self.optimizer_zero_grad()  # type: ignore[attr-defined]
        output: Output = super().forward_backward_batch(data, loss_function)  # type: ignore[misc]
        output["metrics"].update(as_metrics(metrics))
        return output

    def _parts(self, data: Any) -> list[Any]:
        """The batches of one objective's passes: the whole, or its two halves."""
        self._all_tokens = None
        if not isinstance(self._estimator, SplitHalfEstimator):
            return [data]
        parts = halves(data)
        counts = torch.tensor(
            [*map(sizes, parts)], dtype=torch.float64, device=self._gradients.device
        )
        first, second = (Sizes(*row) for row in sum_over(counts, self._group).tolist())
        # Each half is normalised by the whole, so that the two gradients add up to it.
        self._all_tokens = first.tokens + second.tokens
        weights = [half.of(self._loss_agg_mode) for half in (first, second)]
        total = max(sum(weights), 1.0)
        self._half_shares = (weights[0] / total, weights[1] / total)
        return list(parts)

    def _on_micro_batch(self, data: Any) -> None:
        if self._all_tokens is not None:
            host.name("verl.utils.tensordict_utils", "assign_non_tensor")(
                data, batch_num_tokens=self._all_tokens
            )
        if isinstance(self._estimator, MicroBatchEstimator):
            self._estimator.start_unit(sizes(data).of(self._loss_agg_mode))
