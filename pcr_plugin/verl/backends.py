"""Engine backends `pcr:<backend>`, each built on the stock class of every device.

A backend of our own means that an unknown or unloaded plugin stops the run, and that the
reference policy, the critic and the reward model, which name stock backends, stay stock.
"""

import logging
from importlib.util import find_spec

from pcr_plugin.config.checks import reject
from pcr_plugin.verl import host

PREFIX = "pcr:"
COVERED = ("fsdp", "fsdp2", "megatron")

logger = logging.getLogger(__name__)

_KEY = "actor_rollout_ref.actor.strategy"


def check_backend(strategy: str) -> None:
    """Refuse a backend on which no rule has been shown right.

    Args:
        strategy: the backend that the engine's configuration names.

    Raises:
        ValueError: names the covered ones.
    """
    if strategy not in COVERED:
        reject(
            _KEY,
            strategy,
            "no update_rule has been shown to be right on this engine; use fsdp or fsdp2 with "
            "model_engine=dp, megatron with model_engine=megatron, or update_rule=null",
        )


def check_device(strategy: str) -> None:
    """Refuse a backend that is another one on the device at hand.

    The driver may have no accelerator; the workers build the configuration, too.

    Args:
        strategy: a covered backend.

    Raises:
        ValueError: names the remedy.
    """
    if strategy == "megatron" and host.name("verl.utils.device", "get_device_name")() == "npu":
        reject(
            _KEY,
            strategy,
            "on Ascend veRL's engine of this name is MindSpeed's, which changes Megatron-core, and "
            "no update_rule has been shown to be right on it; use fsdp, fsdp2, or update_rule=null",
        )


def check_kind(asked: str, strategy: str, *, is_megatron: bool) -> None:
    """Refuse an engine of another kind than the one asked for.

    Args:
        asked: `strategy` of the actor.
        strategy: the backend that the engine's configuration names.
        is_megatron: whether that configuration is Megatron's.

    Raises:
        ValueError: names both.
    """
    if asked == strategy and is_megatron == (strategy == "megatron"):
        return
    if is_megatron:
        reject(_KEY, asked, "model_engine=megatron trains with Megatron-core; use megatron")
    reject(_KEY, asked, "model_engine=dp has no such engine; use model_engine=megatron")


def register(strategy: str, model_type: str = "language_model") -> str:
    """Register our engine beside every stock class of a backend.

    Idempotent. Devices and vendors are taken from the registry and not from this machine: the
    driver validates the configuration too and may have no accelerator, nor Megatron-core. Without
    that nothing is registered; a worker then stops at a backend that veRL does not know.

    Args:
        strategy: a covered stock backend.
        model_type: veRL's key of the model family.

    Returns:
        The name of our backend.

    Raises:
        ValueError: the backend is not covered, or veRL has no stock class for it.
    """
    check_backend(strategy)
    registry = host.name("verl.workers.engine.base", "EngineRegistry")
    # There is no public listing; `get_engine_cls` answers for the current device alone.
    stock = registry._engines.get(model_type, {}).get(strategy, {})
    backend = PREFIX + strategy
    if not stock and strategy == "megatron" and find_spec("megatron") is None:
        logger.warning("pcr-plugin: no Megatron-core here, where only a driver can do without it")
        return backend
    if not stock:
        why = "veRL has no engine of this name here; its warnings, above, say what it lacks"
        reject(_KEY, strategy, why)
    ours = registry._engines[model_type].get(backend, {})
    for key, engine in list(stock.items()):
        if key not in ours:
            device, vendor = key if isinstance(key, tuple) else (key, None)
            registry.register(model_type, backend, device, vendor)(_derive(engine, strategy))
    return backend


def _derive(stock: type, strategy: str) -> type:
    ours: type
    if strategy == "megatron":
        from pcr_plugin.verl.megatron_engine import MegatronTwoGradientEngine as ours
    else:
        from pcr_plugin.verl.fsdp_engine import FsdpTwoGradientEngine as ours
    return type(f"PCR{stock.__name__}", (ours, stock), {"__module__": __name__})
