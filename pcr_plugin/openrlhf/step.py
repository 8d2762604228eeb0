"""One optimizer step of the actor: backward passes micro-batch by micro-batch, then the update."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from pcr_plugin.blocks import partition
from pcr_plugin.config import UpdateRule
from pcr_plugin.distributed import (
    broadcast_from_first,
    gather_lists,
    group_of_all,
    is_first_of,
    ranks_of,
    sum_over,
)
from pcr_plugin.estimators import MicroBatchEstimator, Objective, SplitHalfEstimator
from pcr_plugin.openrlhf.gradients import ZeroGradients
from pcr_plugin.openrlhf.kl_term import KLTerm
from pcr_plugin.openrlhf.layouts import slots_of
from pcr_plugin.passes import InTurn
from pcr_plugin.update import TwoGradientUpdate

# Which backward passes follow a forward pass: of both losses, or of one where every objective has
# forward passes of its own.
Turn = Literal["both", "stability", "plasticity"]


class Step:
    """The update for one DeepSpeed engine, and what lives longer than a step.

    Args:
        engine: the actor's.
        rule: the resolved rule.
    """

    def __init__(self, engine: Any, rule: UpdateRule) -> None:
        self._engine = engine
        slots = slots_of(engine)
        self._slots = slots
        blocks = partition(slots.names, rule.settings.scope, rule.settings.block)
        self._gradients = ZeroGradients(slots, blocks)
        # Without sequence and tensor parallelism, which are refused, all ranks have rows of theirs.
        self._group = group_of_all()
        self._device = torch.device(get_accelerator().current_device_name())
        self._half_sizes = [0.0, 0.0]
        self._half_shares = (0.5, 0.5)
        self._estimator = self._build_estimator(rule, len(blocks))
        self._passes = InTurn(self._gradients, self._estimator)
        self.update = TwoGradientUpdate(
            rule,
            blocks,
            self._gradients,
            self._estimator,
            lambda table: sum_over(table.to(self._device), self._group),
            get_accelerator(),
            from_first_rank=lambda compute, received: broadcast_from_first(
                compute, received.to(self._device), self._group
            ),
            gather=lambda texts: gather_lists(texts, self._group),
        )
        self._kl = KLTerm(0.0)
        self._turn: Turn = "both"
        self._metrics: list[dict[str, float]] = []

    def _build_estimator(
        self, rule: UpdateRule, blocks: int
    ) -> MicroBatchEstimator | SplitHalfEstimator:
        if rule.settings.variance.estimator == "split_half":
            first = is_first_of(self._group)
            return SplitHalfEstimator(self._gradients, blocks, lambda: self._half_shares, first)
        # DeepSpeed averages over the ranks.
        scale = 1 / ranks_of(self._group)
        return MicroBatchEstimator(self._gradients, blocks, scale, self._device)

    def start_micro_batch(self, size: float) -> None:
        """Before anything is computed of a micro-batch.

        Args:
            size: its tokens, as the losses count them.
        """
        half = self._passes.start_micro_batch()
        self._half_sizes[half] += size
        if isinstance(self._estimator, MicroBatchEstimator):
            self._estimator.start_unit(size)

    def expect(self, beta: float, turn: Turn) -> KLTerm:
        """Before a forward pass.

        Args:
            beta: the KL coefficient.
            turn: what is run backward after it.

        Returns:
            What OpenRLHF is to take for the coefficient.
        """
        self._kl, self._turn = KLTerm(beta), turn
        return self._kl

    def backward(self, loss: Tensor) -> None:
        """Run the losses backward whose turn it is.

        Args:
            loss: all of the loss but the KL term.
        """
        both = self._turn == "both"
        if self._turn != "plasticity":
            self._sweep(Objective.STABILITY, self._kl.loss(), self._kl.beta, kept=both)
        if self._turn != "stability":
            self._sweep(Objective.PLASTICITY, loss, 1.0)

    def _sweep(
        self, objective: Objective, loss: Tensor, of_rest: float, *, kept: bool = False
    ) -> None:
        """One backward pass, which reduces by itself."""
        self._engine.set_gradient_accumulation_boundary(True)
        self._slots.expect()
        with self._passes.backward(objective, of_rest):
            self._engine.backward(loss, retain_graph=kept)

    def end_micro_batch(self) -> None:
        """The optimizer's step if this was the window's last micro-batch."""
        if self._turn == "stability":
            return
        engine = self._engine
        last = (engine.micro_steps + 1) % engine.gradient_accumulation_steps() == 0
        if last:
            self._share_halves()
            self._metrics.append(self.update.run(self._kl.beta, self._passes))
            self._gradients.hand_over()
        engine.set_gradient_accumulation_boundary(last)
        engine.step()
        if last and not math.isfinite(engine.get_global_grad_norm() or 0.0):
            self.update.forget_step()

    def _share_halves(self) -> None:
        if isinstance(self._estimator, SplitHalfEstimator):
            sizes = torch.tensor(self._half_sizes, dtype=torch.float64, device=self._device)
            first, second = sum_over(sizes, self._group).tolist()
            total = max(first + second, 1.0)
            self._half_shares = (first / total, second / total)
        self._half_sizes = [0.0, 0.0]

    def take_metrics(self) -> dict[str, float]:
        """Means over the steps since the last call; a metric counts in the steps that have it."""
        steps, self._metrics = self._metrics, []
        names = sorted({name for step in steps for name in step})
        return {name: _mean([step[name] for step in steps if name in step]) for name in names}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
