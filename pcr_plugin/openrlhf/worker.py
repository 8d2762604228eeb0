"""OpenRLHF's Ray actor of the policy, whose trainer has a rule."""

import logging
from typing import Any

import ray
from openrlhf.trainer.ray import ppo_actor

from pcr_plugin.openrlhf.options import rule_of
from pcr_plugin.openrlhf.trainer import with_rule

logger = logging.getLogger(__name__)

_STATE = "pcr_plugin"
# `@ray.remote` wraps the class twice; a subclass of the wrapper would have its name.
_Stock: Any = ppo_actor.PolicyModelActor.__ray_metadata__.modified_class.__ray_actor_class__


class TwoGradientPolicyActor(_Stock):
    """The stock actor; its rule travels in OpenRLHF's own arguments."""

    trainer: Any

    def init_model_from_pretrained(self, strategy: Any, *arguments: Any, **named: Any) -> None:
        """Build everything as stock, then let a trainer with a rule take over.

        Raises:
            ValueError: a setting that the rule cannot be right with.
        """
        rule = rule_of(strategy.args)
        if rule is None:
            raise ValueError(
                "--actor.update_rule has not reached the worker; this is an error of ours"
            )
        super().init_model_from_pretrained(strategy, *arguments, **named)
        self.trainer = with_rule(self.trainer, rule)
        self._restore_averages()
        logger.warning("pcr-plugin: %s", rule.describe())

    def _restore_averages(self) -> None:
        """From the client state of the checkpoint, if one was loaded."""
        average = self.trainer.two_gradients.update.average
        if _STATE in self.checkpoint_states:
            average.load_state_dict(self.checkpoint_states[_STATE])
        elif self.checkpoint_states and average.decay > 0:
            logger.warning("the checkpoint has no averages of V; they start anew")

    def save_checkpoint(
        self, tag: str, client_states: Any = None, *arguments: Any, **named: Any
    ) -> None:
        """The stock checkpoint, with the moving averages in its client state."""
        state = self.trainer.two_gradients.update.average.state_dict()
        states = {**(client_states or {}), _STATE: state}
        super().save_checkpoint(tag, states, *arguments, **named)


def remote() -> Any:
    """The class as OpenRLHF's launcher takes it."""
    return ray.remote(num_gpus=1)(TwoGradientPolicyActor)
