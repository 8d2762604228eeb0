"""veRL's actor configurations with the two keys `update_rule` and `pcr`.

`hydra_plugins.pcr_plugin_config` puts these classes into `_target_`, so that the driver and every
worker import this file when they read the configuration: a missing or broken plugin stops them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pcr_plugin.verl import host

logger = logging.getLogger(__name__)

try:
    from verl.workers.config import (
        FSDPActorConfig,
        McoreActorConfig,
        McoreEngineConfig,
        TorchTitanActorConfig,
        VeOmniActorConfig,
    )

    from pcr_plugin.config import PCRSettings, UpdateRule, resolve, settings_from_mapping
    from pcr_plugin.verl import backends
    from pcr_plugin.verl.refusals import (
        check_actor,
        check_engine,
        check_model,
        check_ranks,
        check_units,
        ranks_of_a_replica,
    )
    from pcr_plugin.weightings import load
except Exception as error:
    # Hydra says only "Error locating target" when the import of a `_target_` fails, and what it
    # was caused by where Ray shows a worker's error.
    problem = host.unsupported("its configuration cannot be imported", error)
    logger.critical("%s", problem)
    raise problem from error

# Facts about the rest of the recipe that the configuration source interpolates into `pcr`.
RECIPE = "recipe"

Actor = TypeVar("Actor")


class _WithUpdateRule:
    """Resolves the rule when veRL instantiates the actor's configuration."""

    update_rule: str | None
    pcr: Any
    strategy: str
    engine: Any

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        settings, recipe = _read(self.pcr)
        rule = resolve(self.update_rule, settings)
        if rule is None:
            _warn_about_idle_keys(settings)
            return
        attach(self, rule, recipe)

    def validate(self, n_gpus: int, train_batch_size: int, model_config: Any = None) -> None:
        """veRL's check with run-time parameters, in the driver, then ours.

        Args:
            n_gpus: all ranks of the actor.
            train_batch_size: prompts per step.
            model_config: the model's configuration.

        Raises:
            ValueError: names key, value and remedy.
        """
        super().validate(n_gpus, train_batch_size, model_config)  # type: ignore[misc]
        check_run(self, n_gpus, model_config)


@dataclass
class PCRFSDPActorConfig(_WithUpdateRule, FSDPActorConfig):
    """veRL's FSDPActorConfig with `update_rule` and `pcr`."""

    update_rule: str | None = None
    pcr: Any = field(default_factory=PCRSettings)


@dataclass
class PCRMcoreActorConfig(_WithUpdateRule, McoreActorConfig):
    """veRL's McoreActorConfig with `update_rule` and `pcr`."""

    update_rule: str | None = None
    pcr: Any = field(default_factory=PCRSettings)


@dataclass
class PCRTorchTitanActorConfig(_WithUpdateRule, TorchTitanActorConfig):
    """veRL's TorchTitanActorConfig with `update_rule` and `pcr`."""

    update_rule: str | None = None
    pcr: Any = field(default_factory=PCRSettings)


@dataclass
class PCRVeOmniActorConfig(_WithUpdateRule, VeOmniActorConfig):
    """veRL's VeOmniActorConfig with `update_rule` and `pcr`."""

    update_rule: str | None = None
    pcr: Any = field(default_factory=PCRSettings)


def check_run(actor: Any, ranks: int, model_config: Any) -> None:
    """Refuse what only the sizes of the run and its model show.

    Args:
        actor: an instance of one of our configurations.
        ranks: all ranks of the actor.
        model_config: the model's configuration, if it is known.

    Raises:
        ValueError: names key, value and remedy.
    """
    rule = getattr(actor.engine, "update_rule", None)
    if rule is None:
        return
    check_engine(actor.engine, rule, ranks)
    check_ranks(actor.engine, ranks)
    check_units(actor, rule, ranks // ranks_of_a_replica(actor.engine))
    if model_config is not None:
        check_model(model_config, actor.engine.strategy, rule)


def attach(actor: Any, rule: UpdateRule, recipe: dict[str, Any]) -> None:
    """Make the actor's engine configuration name our backend and carry the rule.

    Args:
        actor: veRL's actor configuration, already checked by veRL.
        rule: the resolved rule.
        recipe: see `check_actor`.

    Raises:
        ValueError: the configuration cannot be trained with a rule.
        ImportError: veRL lacks a name that we build on.
    """
    # The engine is chosen by the engine's key, which `actor.strategy` sets for FSDP alone.
    strategy = actor.engine.strategy.removeprefix(backends.PREFIX)
    backends.check_backend(strategy)
    is_megatron = isinstance(actor.engine, McoreEngineConfig)
    backends.check_kind(actor.strategy, strategy, is_megatron=is_megatron)
    backends.check_device(strategy)
    check_actor(actor, rule, recipe)
    check_engine(actor.engine, rule)
    if rule.weighting is not None:
        load(rule.weighting)
    host.check_version()
    host.check_all()
    try:
        backend = backends.register(strategy)
    except ImportError as error:
        raise host.unsupported("the engine cannot be loaded", error) from error
    # veRL itself sets the frozen `strategy` of its engine configuration in this way.
    object.__setattr__(actor.engine, "strategy", backend)
    object.__setattr__(actor.engine, "update_rule", rule)
    logger.warning("pcr-plugin: %s on engine backend %s", rule.describe(), backend)


def enable(actor: Actor, update_rule: str = "pcr", **settings: Any) -> Actor:
    """Switch a rule on from code, without Hydra.

    Call it in the process that builds the engine, which is every worker: it registers the engine
    there, and veRL refuses to build one that it does not know.

    Args:
        actor: an instance of one of veRL's actor configurations; changed in place.
        update_rule: the rule.
        **settings: fields of `PCRSettings`; `variance` may be a mapping.

    Returns:
        The same object.

    Raises:
        ValueError: names key, value and what is allowed.

    Example:
        >>> actor = enable(FSDPActorConfig(...), "pcr", preset="robust")
    """
    rule = resolve(update_rule, settings_from_mapping(settings))
    if rule is not None:
        attach(actor, rule, recipe={})
    return actor


def _read(values: Any) -> tuple[PCRSettings, dict[str, Any]]:
    """Settings and recipe from what Hydra passes on: OmegaConf's mapping or a plain one."""
    from omegaconf import DictConfig, OmegaConf

    if isinstance(values, PCRSettings):
        return values, {}
    if isinstance(values, DictConfig):
        values = OmegaConf.to_container(values, resolve=True)
    if not isinstance(values, Mapping):
        return PCRSettings() if values is None else settings_from_mapping(values), {}
    settings = {key: value for key, value in values.items() if key != RECIPE}
    return settings_from_mapping(settings), values.get(RECIPE) or {}


def _warn_about_idle_keys(settings: PCRSettings) -> None:
    if settings != PCRSettings():
        logger.warning("update_rule=null: the run is stock, the pcr.* keys that are set do nothing")
