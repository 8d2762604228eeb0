"""OpenRLHF's trainer of the actor, with a rule."""

from dataclasses import replace
from typing import Any

from deepspeed.accelerator import get_accelerator
from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

from pcr_plugin.config import UpdateRule
from pcr_plugin.gradients import RandomState
from pcr_plugin.openrlhf.passes import takes_two_forward_passes
from pcr_plugin.openrlhf.refusals import check_arguments
from pcr_plugin.openrlhf.step import Step
from pcr_plugin.openrlhf.strategy import TwoGradientStrategy


class TwoGradientTrainer(ActorPPOTrainer):
    """The stock trainer, whose training step is run with another KL coefficient.

    Its loop over the buffer, its losses, its optimizer and its metrics are the stock trainer's.
    """

    two_gradients: Step
    ema_model: Any

    @classmethod
    def adopt(cls, stock: ActorPPOTrainer, rule: UpdateRule) -> "TwoGradientTrainer":
        """Take over the state of a trainer whose model is ready.

        A second construction would open a second connection to the inference engines.

        Args:
            stock: the worker's trainer.
            rule: the resolved rule.

        Raises:
            ValueError: a setting that the rule cannot be right with.
        """
        check_arguments(stock.args, rule)
        adopted = cls.__new__(cls)
        adopted.__dict__.update(stock.__dict__)
        adopted.two_gradients = Step(stock.actor.model, rule)
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
        self.two_gradients.start_micro_batch(float(experience.action_mask.sum()))
        rest = (step, loss_batch_info)
        if not self._two_forward:
            both = self.two_gradients.expect(kl_ctl, "both")
            return super().training_step(experience, both, *rest)
        self._stability(experience, kl_ctl, rest)
        plasticity = self.two_gradients.expect(kl_ctl, "plasticity")
        return super().training_step(experience, plasticity, *rest)

    def _stability(self, experience: Any, kl_ctl: float, rest: tuple[int, Any]) -> None:
        """A step that leaves nothing behind but the gradient of the KL loss."""
        random_state = RandomState.capture(get_accelerator())
        stability = self.two_gradients.expect(kl_ctl, "stability")
        ema_model, self.ema_model = self.ema_model, None
        try:
            super().training_step(replace(experience, info=dict(experience.info)), stability, *rest)
        finally:
            self.ema_model = ema_model
        random_state.restore()
