"""One optimizer step of the actor: backward passes micro-batch by micro-batch, then the update."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from pcr_plugin.blocks import partition
from pcr_plugin.config import UpdateRule
from pcr_plugin.distributed import (
    from_first_rank,
    gather_lists,
    group_of_all,
    sum_over,
)
from pcr_plugin.estimators import Objective
from pcr_plugin.metrics import PREFIX
from pcr_plugin.openrlhf.gradients import ZeroGradients
from pcr_plugin.openrlhf.kl_term import KLTerm
from pcr_plugin.openrlhf.layouts import slots_of
from pcr_plugin.openrlhf.units import Units
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
        packed: whether the model gets the rows of a micro-batch without padding, as one.
    """

    def __init__(self, engine: Any, rule: UpdateRule, *, packed: bool) -> None:
        self._engine = engine
        self._rule = rule
        slots = slots_of(engine)
        self._slots = slots
        blocks = partition(slots.names, rule.settings.scope, rule.settings.block)
        self._gradients = ZeroGradients(slots, blocks)
        group = group_of_all()
        device = torch.device(get_accelerator().current_device_name())
        self._units = Units(engine, rule, self._gradients, len(blocks), packed=packed)
        self._passes = InTurn(self._gradients, self._units.estimator)
        self.update = TwoGradientUpdate(
            rule,
            blocks,
            self._gradients,
            self._units.estimator,
            lambda table: sum_over(table.to(device), group),
            get_accelerator(),
            from_first_rank=lambda compute: from_first_rank(compute, group),
            gather=lambda texts: gather_lists(texts, group),
        )
        self._kl = KLTerm(0.0)
        self._turn: Turn = "both"
        self._metrics: list[dict[str, float]] = []

    def start_micro_batch(self, experience: Any) -> None:
        """Before anything is computed of a micro-batch.

        Args:
            experience: OpenRLHF's.
        """
        self._units.start_micro_batch(experience, self._passes.start_micro_batch())

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
        # What is outside the scope is of no use to a measurement.
        rest = 0.0 if self._rule.observes else 1.0
        if self._turn != "plasticity":
            self._sweep(Objective.STABILITY, self._kl.loss(), rest * self._kl.beta, kept=both)
        if self._turn != "stability":
            self._sweep(Objective.PLASTICITY, loss, rest)

    def _sweep(
        self, objective: Objective, loss: Tensor, of_rest: float, *, kept: bool = False
    ) -> None:
        """One backward pass, which reduces by itself."""
        self._engine.set_gradient_accumulation_boundary(True)
        self._slots.expect()
        with self._passes.backward(objective, of_rest):
            self._engine.backward(loss, retain_graph=kept)

    def end_micro_batch(self) -> None:
        """The optimizer's step if this was the window's last micro-batch.

        With the rule `observe` the statistics of the step alone: the optimizer is not ours.
        """
        if self._turn == "stability":
            return
        engine = self._engine
        last = (engine.micro_steps + 1) % engine.gradient_accumulation_steps() == 0
        if last:
            self._units.end_window()
            self._metrics.append(self.update.run(self._kl.beta, self._passes))
        if last and self._rule.observes:
            self._gradients.begin()
        elif last:
            self._gradients.hand_over()
        if self._rule.observes:
            return
        engine.set_gradient_accumulation_boundary(last)
        engine.step()
        if last:
            self._forget_if_skipped()

    def _forget_if_skipped(self) -> None:
        # DeepSpeed leaves out a step of bf16 parameters on ZeRO-1 and 2, and its norm is then that
        # of the step before. Elsewhere it makes one of whatever numbers.
        norm = self._engine.get_global_grad_norm() or 0.0
        if not (self._engine.was_step_applied() and math.isfinite(norm)):
            self.update.forget_step()

    @property
    def optimizer_steps(self) -> int:
        """How many DeepSpeed has made, in this run and in those it goes on from."""
        steps: int = self._engine.global_steps
        return steps

    @property
    def is_measured(self) -> bool:
        """Whether the next optimizer step is one that the rule `observe` measures."""
        return self.optimizer_steps % self._rule.settings.observe_every == 0

    def unseen(self) -> AbstractContextManager[None]:
        """Around passes of which DeepSpeed finds nothing afterwards (rule `observe`)."""
        return self._slots.untouched()

    def end_stock_step(self, *, measured: bool) -> None:
        """After an optimizer step that was not ours (rule `observe`).

        Args:
            measured: whether there are statistics of it.
        """
        if measured:
            self._forget_if_skipped()
        else:
            self._metrics.append({PREFIX + "active": 1.0})

    def take_metrics(self) -> dict[str, float]:
        """Means over the steps since the last call; a metric counts in the steps that have it."""
        steps, self._metrics = self._metrics, []
        names = sorted({name for step in steps for name in step})
        return {name: _mean([step[name] for step in steps if name in step]) for name in names}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
