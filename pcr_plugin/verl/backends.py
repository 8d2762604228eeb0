"""Engine backends `pcr:<backend>`, each built on the stock class of every device.

A backend of our own means that an unknown or unloaded plugin stops the run, and that the
reference policy, the critic and the reward model, which name stock backends, stay stock.
"""

from pcr_plugin.config.checks import reject
from pcr_plugin.verl import host

PREFIX = "pcr:"
COVERED = ("fsdp", "fsdp2", "megatron")


def check_backend(strategy: str) -> None:
    """Refuse a backend that has no engine of ours.

    Args:
        strategy: the actor's `strategy`.

    Raises:
        ValueError: names the covered ones.
    """
    if strategy in COVERED:
        return
    reject(
        "actor_rollout_ref.actor.strategy",
        strategy,
        f"not covered with update_rule; use {', '.join(COVERED)}",
    )


def register(strategy: str, model_type: str = "language_model") -> str:
    """Register our engine beside every stock class of a backend.

    Idempotent. Devices and vendors are taken from the registry and not from this machine: the
    driver validates the configuration too and may have no accelerator.

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
    if not stock:
        reject("actor_rollout_ref.actor.strategy", strategy, "veRL has no engine of this name here")
    backend = PREFIX + strategy
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
