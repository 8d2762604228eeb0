"""Our checks in the driver, before the application's main function, whatever that checks itself.

`verl.trainer.main_ppo` builds the actor's configuration before it starts Ray. The main function of
veRL's fully asynchronous trainer does not, and that of the one-step-off trainer does it in a Ray
task. Hydra calls this class in every application that composes one of veRL's actors.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pcr_plugin.config.checks import Refusal, reject
from pcr_plugin.verl.host import Unsupported

# Hydra's key for what `instantiate` calls.
_TARGET = "_target_"


class CheckInDriver(Callback):
    """Hydra's callback, put there by our configuration source.

    Raises:
        SystemExit: with the message of a refusal. (Hydra turns any other error of a callback into
            a warning.)
    """

    def on_job_start(self, config: DictConfig, **named: Any) -> None:
        """Refuse a run that the workers would refuse.

        Args:
            config: of the application.
            **named: Hydra's further arguments.
        """
        message = refusal(config)
        if message is not None:
            raise SystemExit(message)


def refusal(config: DictConfig) -> str | None:
    """Why a run cannot go on.

    Args:
        config: of an application of veRL's.

    Returns:
        The message of our refusal. `None` without a rule, where all is well, and where it is veRL
        itself that fails, which says so when it comes to it.
    """
    actor = OmegaConf.select(config, "actor_rollout_ref.actor")
    if actor is None:
        return None
    try:
        # With the rule off, too: Hydra builds the block all the same.
        block = actor.get("pcr")
        if OmegaConf.is_config(block):
            key = "actor_rollout_ref.actor.pcr"
            refuse_calls(key, OmegaConf.to_container(block, resolve=True))
        if actor.get("update_rule") is None:
            return None
        with _in_silence():
            _check(config)
    except Exception as error:
        return _message_of_ours(error)
    return None


def refuse_calls(key: str, value: Any) -> None:
    """Raise `Refusal` for a `_target_`, which Hydra would import and call while it builds a block.

    Args:
        key: of the value.
        value: of containers and numbers, resolved.
    """
    if isinstance(value, Mapping):
        if _TARGET in value:
            reject(f"{key}.{_TARGET}", value[_TARGET], "this block has values, and nothing to call")
        for name, part in value.items():
            refuse_calls(f"{key}.{name}", part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            refuse_calls(f"{key}[{index}]", part)


def _check(config: DictConfig) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    from pcr_plugin.verl.actor_config import check_run

    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    nodes = OmegaConf.select(config, "trainer.nnodes")
    each = OmegaConf.select(config, "trainer.n_gpus_per_node")
    if nodes and each:
        check_run(actor, nodes * each, OmegaConf.select(config, "actor_rollout_ref.model"))


def _message_of_ours(error: BaseException | None) -> str | None:
    """Hydra wraps what happens while an object is built."""
    while error is not None and not isinstance(error, (Refusal, Unsupported)):
        error = error.__cause__
    return None if error is None else str(error)


@contextmanager
def _in_silence() -> Iterator[None]:
    """Warnings and the resolved rule are logged where the configuration is built in earnest."""
    ours = logging.getLogger("pcr_plugin")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(level)
