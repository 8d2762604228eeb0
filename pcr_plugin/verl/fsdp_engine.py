"""veRL's FSDP engines, both versions, with two gradients a step."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from pcr_plugin.config.checks import reject
from pcr_plugin.distributed import (
    all_equal,
    group_of,
    is_first_of,
    is_first_replica,
    on_any,
    ranks_of,
    sum_over,
)
from pcr_plugin.estimators import SequenceRanks
from pcr_plugin.verl.engine import TwoGradientEngine
from pcr_plugin.verl.fsdp1_gradients import Fsdp1Gradients, flat_slices
from pcr_plugin.verl.fsdp2_shared import Fsdp2SharedGradients
from pcr_plugin.verl.gathering import stay_gathered
from pcr_plugin.verl.grouping import advantage_first
from pcr_plugin.verl.kept_graph import keep_compiled_graphs, nothing_in_place
from pcr_plugin.verl.layout import Layout
from pcr_plugin.verl.linear_layers import linear_layers
from pcr_plugin.verl.losses import SplitLoss
from pcr_plugin.verl.passes import Step
from pcr_plugin.verl.recomputing import Recomputing
from pcr_plugin.verl.shared_forward import SharedLoop
from pcr_plugin.verl.sharing import reason_against
from pcr_plugin.verl.units import labels_of_tokens

logger = logging.getLogger(__name__)


class FsdpTwoGradientEngine(TwoGradientEngine):
    """Mixed in before the stock FSDP engine."""

    module: nn.Module
    device_mesh: Any
    checkpoint_manager: Any
    ulysses_parallel_group: Any
    engine_config: Any
    model_config: Any
    _autocast_dtype: Any
    # While a step with one forward pass per micro-batch is under way.
    _loop: SharedLoop | None = None
    _shares_forward = False
    _recomputing: Recomputing

    def initialize(self) -> None:
        """As for every engine, and decide how the step comes to its two gradients."""
        super().initialize()
        configs = self.engine_config, self.model_config
        against = reason_against(*configs, self.module, self._rule)
        self._shares_forward = not against
        self._combines = self._rule.settings.combine_signals
        if is_first_of(self._group):
            # Not less: at veRL's usual level nobody would see it.
            logger.warning("pcr-plugin: %s", self._describe_passes(against))
        if self._shares_forward:
            keep_compiled_graphs()
            self._recomputing = Recomputing(
                self.module,
                self._shared_gradients,
                asked=self._rule.settings.share_recomputation,
                generators=self.generators(),
                all_equal=self._all_equal,
                logs=is_first_of(self._group),
            )

    @property
    def _shared_gradients(self) -> Fsdp2SharedGradients:
        assert isinstance(self._gradients, Fsdp2SharedGradients), "FSDP2 has no other"
        return self._gradients

    def _all_equal(self, number: int) -> bool:
        return all_equal(number, self._group, self._device)

    def _describe_passes(self, against: str) -> str:
        if against:
            return f"passes=two_forward ({against})"
        outside = "from p + beta s, once" if self._combines else "for both signals"
        return f"passes=shared_forward (gradients outside the scope {outside})"

    def passes_of(self, data: Any, parts: Sequence[Any], split: SplitLoss) -> Step:
        """One forward pass for both objectives where that is exact."""
        if not self._shares_forward:
            return super().passes_of(data, parts, split)
        scaler = getattr(self, "scaler", None)
        zero = self._rule.settings.zero_advantage
        if zero == "group":
            parts = [advantage_first(part) for part in parts]
        loop = SharedLoop(
            self.stock_pass,
            parts,
            split,
            self._shared_gradients,
            self._estimator,
            combined=self._combines,
            scale=(lambda loss: loss) if scaler is None else scaler.scale,
            around=self._looping,
            before_another=self._gathered,
            all_equal=self._all_equal,
            on_any=None if zero == "run" else self._on_any,
            precision=self._autocast_dtype,
        )
        return Step(loop.passes, loop.output)

    def _on_any(self, flag: bool) -> bool:
        return on_any(flag, self._group, self._device)

    @contextmanager
    def _looping(self, loop: SharedLoop) -> Iterator[None]:
        self._loop = loop
        try:
            yield
        finally:
            self._loop = None

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """What stays gathered after the forward pass stays so until the second backward pass."""
        if self.engine_config.reshard_after_forward:
            yield
            return
        assert isinstance(self.module, FSDPModule), "one forward pass is for FSDP2 alone"
        with stay_gathered(self.module, recurse=True):
            yield

    def forward_step(self, micro_batch: Any, loss_function: Any, forward_only: bool) -> Any:
        """The stock step; in a loop with two backward passes, the first of them after it."""
        stock = super().forward_step  # type: ignore[misc]
        if self._loop is None:
            return stock(micro_batch, loss_function, forward_only)
        with nothing_in_place():
            self._recomputing.look(lambda: stock(micro_batch, None, True))
        recomputation = self._recomputing.of(self._loop.passes)
        return self._loop.forward_step(stock, micro_batch, loss_function, recomputation)

    @contextmanager
    def _gradient_sync_context(self, *, is_last_micro_batch: bool) -> Iterator[None]:
        """The stock context around a micro-batch; with two backward passes none defers the sync.

        Deferred, both objectives would accumulate whole gradients on every rank.
        """
        if self._loop is None:
            stock = super()._gradient_sync_context  # type: ignore[misc]
            with stock(is_last_micro_batch=is_last_micro_batch):
                yield
            return
        with self._loop.passes.micro_batch():
            yield

    def layout(self) -> Layout:
        """One rank is one data-parallel worker; FSDP averages over ranks what veRL has
        multiplied by their number.
        """
        flat = flat_slices(self.module)
        names = [found.name for found in flat if found.trainable] or [
            name for name, p in self.module.named_parameters() if p.requires_grad
        ]
        access = Fsdp1Gradients if flat else Fsdp2SharedGradients
        counted = is_first_replica(self.device_mesh)
        group = group_of(self.device_mesh)
        self._check_slices()
        return Layout(
            names=names,
            access=lambda blocks: access(self.module, blocks, counted),
            group=group,
            linear_layers=lambda gradients: linear_layers(self.module, gradients.names),
            sequence_ranks=lambda: self._sequence_ranks(group),
            gradient_scale=1.0 / ranks_of(group),
        )

    def _check_slices(self) -> None:
        """veRL slices the tokens of a model with pictures inside of the model, not before it."""
        ranks = self.engine_config.ulysses_sequence_parallel_size
        pictures = hasattr(getattr(self.module, "module", self.module).config, "vision_config")
        if pictures and ranks > 1 and self._rule.settings.variance.estimator == "sequence":
            reject(
                "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
                ranks,
                "pcr.variance.estimator=sequence then cannot tell which tokens a rank of a model "
                "with vision_config has; use split_half, or set it to 1",
            )

    def _sequence_ranks(self, group: Any) -> SequenceRanks:
        """With Ulysses the ranks of a sequence group have slices of the same rows."""
        sharing = self.ulysses_parallel_group
        first = sharing is None or is_first_of(sharing)
        return SequenceRanks(
            sum_parts=lambda values: sum_over(values, sharing),
            sum_all=lambda values: sum_over(values, group),
            counts_rows=first,
            counts_sums=is_first_of(group),
            counts_units=first,
        )

    def rows_of_tokens(self, data: Any) -> Tensor:
        """The rows as veRL's own code pads or packs, and slices, their tokens."""
        labelled = data.copy()
        labelled["input_ids"] = labels_of_tokens(data)
        labelled.pop("multi_modal_inputs", None)
        inputs, _ = self.prepare_model_inputs(labelled)  # type: ignore[attr-defined]
        labels: Tensor = inputs["input_ids"].flatten()
        return -1 - labels

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
