"""The engine of the backends `pcr:<backend>`: the stock engine with two gradients a step.

Only `forward_backward_batch` differs. veRL's `train_batch` still zeroes, calls it, clips and
steps; the optimizer, the scheduler and the checkpoint are veRL's.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.blocks import cells, partition
from pcr_plugin.config import UpdateRule
from pcr_plugin.distributed import (
    all_or_none,
    all_ranks,
    from_first_rank,
    gather_lists,
    ranks_of,
    sum_over,
)
from pcr_plugin.estimators import MicroBatchEstimator, SplitHalfEstimator
from pcr_plugin.metrics import PREFIX
from pcr_plugin.statistics import TokenRows
from pcr_plugin.update import TwoGradientUpdate
from pcr_plugin.verl import backends, checkpoint, host
from pcr_plugin.verl.layout import Layout
from pcr_plugin.verl.losses import SplitLoss
from pcr_plugin.verl.measuring import build_estimator
from pcr_plugin.verl.outputs import Output, with_metrics
from pcr_plugin.verl.passes import Step, two_forward
from pcr_plugin.verl.refusals import check_engine, check_model
from pcr_plugin.verl.releases import check_releases
from pcr_plugin.verl.units import Sizes, halves, normalising_tokens, sizes, sizes_of_rows


class TwoGradientEngine(ABC):
    """Mixed in before a stock engine class of veRL, by the class for its backend.

    Raises:
        ValueError: at construction, a configuration that it cannot train; at a step, a loss
            that cannot be taken apart.
    """

    def __init__(self, *, engine_config: Any, model_config: Any, **arguments: Any) -> None:
        self._rule: UpdateRule = engine_config.update_rule
        # A launcher that validates nothing in the driver still cannot get past this.
        check_engine(engine_config, self._rule, all_ranks())
        check_model(model_config, engine_config.strategy, self._rule)
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
        self._is_empty = True

    @abstractmethod
    def layout(self) -> Layout:
        """Where the engine that was just built has its parameters.

        Raises:
            ValueError: a model that cannot be trained with the rule.
        """

    @abstractmethod
    def loss_scale(self) -> float:
        """What the host multiplies the loss by; 1 unless the parameters are fp16."""

    def generators(self) -> Any:
        """What has the random state of this rank's device: `torch.cuda` or what stands for it."""
        return host.name("verl.utils.device", "get_torch_device")()

    @abstractmethod
    def rows_of_tokens(self, data: Any) -> Tensor:
        """The row of every token of a micro-batch, where the model's layers get them.

        Args:
            data: the micro-batch.

        Returns:
            (tokens,) row, negative for padding, flattened as a layer's input is; where a layer
            gathers tokens from ranks, of all of them.
        """

    @property
    @abstractmethod
    def checkpoints(self) -> Any:
        """veRL's checkpoint manager."""

    def initialize(self) -> None:
        """Build the stock engine, then find its gradients; hooks come with the first pass.

        Raises:
            RuntimeError: the ranks have different releases of this package.
        """
        super().initialize()  # type: ignore[misc]
        layout = self.layout()
        settings = self._rule.settings
        blocks = partition(layout.names, settings.scope, settings.block)
        parts = cells(blocks, layout.merged.names if layout.merged else ())
        self._gradients = layout.access(parts.parts)
        self._group = layout.group
        check_releases(self._group)
        self._extras = layout.extras
        self._device = torch.device(host.name("verl.utils.device", "get_device_id")())
        self._estimator = build_estimator(
            self._rule,
            parts,
            layout,
            self._gradients,
            self._device,
            half_shares=lambda: self._half_shares,
            step=lambda: self._steps,
        )
        self._update = TwoGradientUpdate(
            self._rule,
            blocks,
            self._gradients,
            self._estimator,
            lambda table: sum_over(table.to(self._device), self._group),
            self.generators(),
            loss_scale=self.loss_scale,
            from_first_rank=lambda compute: from_first_rank(compute, self._group),
            gather=lambda texts: gather_lists(texts, self._group),
            block_of_cell=parts.block_of,
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

        Raises:
            RuntimeError: the parameters still have the gradient of an earlier call.
        """
        stock = super().forward_backward_batch  # type: ignore[misc]
        if forward_only:
            output: Output = stock(data, loss_function, forward_only=True)
            return output
        self._claim_gradients()
        split = SplitLoss(loss_function, self.on_loss)
        self._loss_agg_mode = split.config.loss_agg_mode
        self._steps += 1
        if self._rule.observes:
            return self._observe(data, loss_function, split)
        return with_metrics(*self._two_gradients(data, split))

    def optimizer_zero_grad(self) -> None:
        """The stock one; the next passes then find nothing."""
        super().optimizer_zero_grad()  # type: ignore[misc]
        self._is_empty = True

    def optimizer_step(self) -> float:
        """The stock step; a skipped one leaves the moving averages as they were."""
        norm = math.nan
        try:
            # Megatron's ends the run where its loss scale has overflown.
            norm = float(super().optimizer_step())  # type: ignore[misc]
        finally:
            if not math.isfinite(norm):
                self._update.forget_step()
        return norm

    def save_checkpoint(self, local_path: str, *positional: Any, **named: Any) -> None:
        """The stock checkpoint and, if its contents include `extra`, the moving averages."""
        super().save_checkpoint(local_path, *positional, **named)  # type: ignore[misc]
        if self.checkpoints.should_save_extra and local_path:
            complete = not self.checkpoints.checkpoint_config.get("async_save", False)
            average, steps = self._update.average, self._steps
            save = partial(checkpoint.save, average, steps, local_path, complete=complete)
            from_first_rank(save, self._group)

    def load_checkpoint(self, local_path: str, *positional: Any, **named: Any) -> None:
        """The stock checkpoint and, if its contents include `extra`, the moving averages.

        Raises:
            ValueError: it was written in another layout, or our part is not readable.
            RuntimeError: the first rank cannot read it.
        """
        if local_path:
            all_or_none(lambda: self.check_checkpoint(local_path), self._group)
            if self.checkpoints.should_load_extra:
                # One rank reads: folders may be local to machines, and all must go on alike.
                state = from_first_rank(lambda: checkpoint.read(local_path), self._group)
                self._steps = checkpoint.load(self._update.average, state, local_path)
        super().load_checkpoint(local_path, *positional, **named)  # type: ignore[misc]

    def check_checkpoint(self, folder: str) -> None:
        """Refuse by name what veRL cannot load here.

        Raises:
            ValueError: it was written by another number of ranks.
        """
        checkpoint.check_ranks(folder, ranks_of(self._group))

    def _claim_gradients(self) -> None:
        if not self._is_empty:
            raise RuntimeError(
                "update_rule combines the gradients of one forward_backward per optimizer step; a "
                "second one (veRL's Tinker worker) would add to what is combined already."
            )
        self._is_empty = False

    def _two_gradients(self, data: Any, split: SplitLoss) -> tuple[Output, dict[str, float]]:
        step = self.passes_of(data, self._parts(data), split)
        with self._extras.forgotten_on_error():
            metrics = self._update.run(split.beta, step.passes)
        return step.output(), metrics

    def stock_pass(self, data: Any, loss_function: Any) -> Output:
        """The stock engine's forward and backward passes over a mini-batch, or a half."""
        output: Output = super().forward_backward_batch(data, loss_function)  # type: ignore[misc]
        return output

    def passes_of(self, data: Any, parts: Sequence[Any], split: SplitLoss) -> Step:
        """The passes of one step: two with forward passes of their own, unless overridden.

        Args:
            data: this rank's mini-batch.
            parts: the same, or its two halves.
            split: the two losses.
        """
        return two_forward(
            self.stock_pass,
            data,
            parts,
            split,
            self._extras,
            self._gradients,
            self._estimator,
            self.generators(),
            observes=self._rule.observes,
        )

    def _observe(self, data: Any, loss_function: Any, split: SplitLoss) -> Output:
        metrics = {PREFIX + "active": 1.0}
        self._update.begin_step()
        if (self._steps - 1) % self._rule.settings.observe_every == 0:
            with self._extras.unseen():
                _, metrics = self._update.observing(lambda: self._two_gradients(data, split))
            super().optimizer_zero_grad()  # type: ignore[misc]
        return with_metrics(self.stock_pass(data, loss_function), metrics)

    def _parts(self, data: Any) -> list[Any]:
        """The batches of one objective's passes: the whole, or its two halves."""
        self._all_tokens = None
        if not isinstance(self._estimator, SplitHalfEstimator):
            return [data]
        parts = halves(data)
        own = [(*sizes(part), normalising_tokens(part)) for part in parts]
        counts = torch.tensor(own, dtype=torch.float64, device=self._device)
        # With Ulysses the ranks of a sequence group have the same sequences: veRL counts them once.
        group = self.get_data_parallel_group()  # type: ignore[attr-defined]
        totals = sum_over(counts, group).tolist()
        # Each half is normalised by the whole, so that the two gradients add up to it.
        self._all_tokens = sum(divided_by for _, _, divided_by in totals)
        weights = [Sizes(*counted).of(self._loss_agg_mode) for *counted, _ in totals]
        total = max(sum(weights), 1.0)
        self._half_shares = (weights[0] / total, weights[1] / total)
        return list(parts)

    def on_loss(self, data: Any) -> None:
        """Called with every micro-batch whose loss is computed on this rank."""
        if self._all_tokens is not None:
            host.name("verl.utils.tensordict_utils", "assign_non_tensor")(
                data, batch_num_tokens=self._all_tokens
            )

    def announce(self, data: Any) -> None:
        """Tell the estimator of a micro-batch before its backward pass.

        Args:
            data: the micro-batch.
        """
        estimator = self._estimator
        if isinstance(estimator, SplitHalfEstimator) or not estimator.is_measuring:
            return
        if isinstance(estimator, MicroBatchEstimator):
            estimator.start_unit(sizes(data).of(self._loss_agg_mode))
            return
        weights = sizes_of_rows(data, self._loss_agg_mode)
        rows = self.rows_of_tokens(data).to(self._device)
        estimator.start_micro_batch(TokenRows.of(rows, len(weights)), weights)
