"""OpenRLHF's trainer of the actor, with a rule."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from deepspeed.accelerator import get_accelerator
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

from pcr_plugin.config import UpdateRule
from pcr_plugin.gradients import RandomState
from pcr_plugin.openrlhf.passes import takes_two_forward_passes
from pcr_plugin.openrlhf.refusals import check_arguments
from pcr_plugin.openrlhf.step import Step
from pcr_plugin.openrlhf.strategy import TwoGradientStrategy

# `typing.Self` is newer than Python 3.10.
Adopted = TypeVar("Adopted", bound="TwoGradientTrainer")
Observing = TypeVar("Observing", bound="ObservingTrainer")


def with_rule(stock: ActorPPOTrainer, rule: UpdateRule) -> "TwoGradientTrainer":
    """A trainer with a rule, in the place of one whose model is ready.

    Args:
        stock: the worker's trainer.
        rule: the resolved rule.

    Raises:
        ValueError: a setting that the rule cannot be right with.
    """
    check_arguments(stock.args, rule)
    kind = ObservingTrainer if rule.observes else TwoGradientTrainer
    return kind.adopt(stock, rule)


class TwoGradientTrainer(ActorPPOTrainer):
    """The stock trainer, whose training step is run with another KL coefficient.

    Its loop over the buffer, its losses, its optimizer and its metrics are the stock trainer's.
    """

    two_gradients: Step
    ema_model: Any
    strategy: Any

    @classmethod
    def adopt(cls: type[Adopted], stock: ActorPPOTrainer, rule: UpdateRule) -> Adopted:
        """Take over the state of a trainer whose model is ready.

        A second construction would open a second connection to the inference engines.

        Args:
            stock: the worker's trainer.
            rule: the resolved rule.
        """
        adopted = cls.__new__(cls)
        adopted.__dict__.update(stock.__dict__)
        adopted.two_gradients = Step(stock.actor.model, rule, packed=stock.actor.packing_samples)
        adopted.strategy = TwoGradientStrategy.adopt(stock.strategy, adopted.two_gradients)
        adopted._two_forward = takes_two_forward_passes(stock.args, rule)
        return adopted

    _two_forward: bool

    def ppo_train(self, kl_ctl: float) -> dict[str, float]:
        """The stock loop; its status also has the rule's metrics.

        Args:
            kl_ctl: beta.
        """
        status: dict[str, float] = super().ppo_train(kl_ctl)
        return {**status, **self.two_gradients.take_metrics()}

    def training_step(
        self, experience: Any, kl_ctl: float, step: int, loss_batch_info: Any = None
    ) -> Any:
        """The stock step, forward and backward, once or twice.

        Args:
            experience: one micro-batch.
            kl_ctl: beta.
            step: its number in the buffer.
            loss_batch_info: normalisers of its window.
        """
        self.two_gradients.start_micro_batch(experience)
        rest = (step, loss_batch_info)
        if not self._two_forward:
            both = self.two_gradients.expect(kl_ctl, "both")
            return super().training_step(experience, both, *rest)
        self._stability(experience, kl_ctl, rest)
        plasticity = self.two_gradients.expect(kl_ctl, "plasticity")
        return super().training_step(experience, plasticity, *rest)

    def _stability(self, experience: Any, kl_ctl: float, rest: tuple[int, Any]) -> None:
        """A step that leaves nothing behind but the gradient of the KL loss."""
        stability = self.two_gradients.expect(kl_ctl, "stability")
        with self.repeatable():
            super().training_step(_copied(experience), stability, *rest)

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """Around passes that come again: random numbers and averaged weights are as before."""
        random_state = RandomState.capture(get_accelerator())
        ema_model, self.ema_model = self.ema_model, None
        try:
            yield
        finally:
            self.ema_model = ema_model
        random_state.restore()


class ObservingTrainer(TwoGradientTrainer):
    """The stock trainer and strategy; before some steps both gradients are measured.

    A measurement has passes of its own in every micro-batch of the window, before the stock ones.
    """

    _measuring: TwoGradientStrategy

    @classmethod
    def adopt(cls: type[Observing], stock: ActorPPOTrainer, rule: UpdateRule) -> Observing:
        """Take over the state; the strategy is ours in measurements only.

        Args:
            stock: the worker's trainer.
            rule: the resolved rule.
        """
        adopted = super().adopt(stock, rule)
        adopted._measuring, adopted.strategy = adopted.strategy, stock.strategy
        return adopted

    def training_step(
        self, experience: Any, kl_ctl: float, step: int, loss_batch_info: Any = None
    ) -> Any:
        """The stock step, after a measurement or not.

        Args:
            experience: one micro-batch.
            kl_ctl: beta.
            step: its number in the buffer.
            loss_batch_info: normalisers of its window.
        """
        rest = (step, loss_batch_info)
        made, measured = self.two_gradients.optimizer_steps, self.two_gradients.is_measured
        if measured:
            self._measure(experience, kl_ctl, rest)
        status = ActorPPOTrainer.training_step(self, experience, kl_ctl, *rest)
        if self.two_gradients.optimizer_steps > made:
            self.two_gradients.end_stock_step(measured=measured)
        return status

    def _measure(self, experience: Any, kl_ctl: float, rest: tuple[int, Any]) -> None:
        stock, self.strategy = self.strategy, self._measuring
        try:
            with self.repeatable(), self.two_gradients.unseen():
                super().training_step(_copied(experience), kl_ctl, *rest)
        finally:
            self.strategy = stock


def _copied(experience: Any) -> Any:
    """A training step writes into `info`."""
    return replace(experience, info=dict(experience.info))
