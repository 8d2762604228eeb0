"""veRL's configuration, composed by Hydra from what a user types."""

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from verl.utils.config import omega_conf_to_dataclass, validate_config

ACTOR = "actor_rollout_ref.actor"
# A recipe that a rule can be switched on in, as an owner of it would have written it.
RECIPE = (
    "algorithm.adv_estimator=grpo",
    "data.train_batch_size=8",
    "trainer.n_gpus_per_node=2",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=2",
    f"{ACTOR}.strategy=fsdp2",
    f"{ACTOR}.use_kl_loss=True",
    f"{ACTOR}.kl_loss_type=k3+",
    f"{ACTOR}.ppo_mini_batch_size=4",
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=2",
)


def composed(overrides: Sequence[str] = (), *, config_name: str = "ppo_trainer") -> DictConfig:
    """The configuration of `python -m verl.trainer.main_ppo RECIPE OVERRIDES`."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(config_name, overrides=[*RECIPE, *overrides])


def actor_of(overrides: Sequence[str] = ()) -> Any:
    """The actor's configuration object, as driver and workers build it."""
    return omega_conf_to_dataclass(composed(overrides).actor_rollout_ref.actor)


def validated(overrides: Sequence[str] = ()) -> None:
    """Everything that `main_ppo` checks before it starts Ray."""
    validate_config(composed(overrides), use_reference_policy=True, use_critic=False)
