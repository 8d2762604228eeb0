"""veRL's actor yamls, as the application would find them, with our keys added."""

from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

# veRL's actor yamls, and the class of ours for the class that they name.
_ACTORS = ("dp_actor", "megatron_actor", "torchtitan_actor", "veomni_actor")
_KINDS = ("FSDP", "Mcore", "TorchTitan", "VeOmni")
_CLASSES = {
    f"verl.workers.config.{kind}ActorConfig": f"pcr_plugin.verl.actor_config.PCR{kind}ActorConfig"
    for kind in _KINDS
}
_VERL_CONFIG = "pkg://verl.trainer.config"


class PCRConfigSource(ConfigSource):
    """Scheme `pcr-plugin`: answers for `actor/<veRL's actor>` and for nothing else.

    The file is looked up where the application would find it (its main path, the search paths
    that a yaml there declares, veRL's package), so a recipe's own `actor/dp_actor.yaml` is
    kept. Our keys are added only if the file names a configuration class of veRL.
    """

    @staticmethod
    def scheme() -> str:
        """The scheme in Hydra's search path."""
        return "pcr-plugin"

    def available(self) -> bool:
        """Always: whether a file is there is asked for each."""
        return True

    def is_group(self, config_path: str) -> bool:
        """We add no group; the application's own sources have them."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Whether this is one of veRL's actor yamls, and where we would read it exists."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return group == "actor" and name in _ACTORS and self._origin(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """We add no option; the application's own sources list them."""
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        """The application's file with `update_rule`, `pcr` and our `_target_`.

        Args:
            config_path: for example `actor/dp_actor`.
        """
        origin = self._origin(config_path)
        assert origin is not None, "is_config was asked first"
        result = origin.load_config(config_path)
        target = result.config.get("_target_")
        if target in _CLASSES:
            result.config["_target_"] = _CLASSES[target]
            result.config["update_rule"] = None
            result.config["pcr"] = _defaults()
        return result

    def _origin(self, config_path: str) -> ConfigSource | None:
        sources = [_source(path) for path in _places(self.path)]
        return next((source for source in sources if source.is_config(config_path)), None)


def _source(path: str) -> ConfigSource:
    scheme = path.split("://")[0] if "://" in path else "file"
    return SourcesRegistry.instance().resolve(scheme)("pcr_plugin", path)


@cache
def _places(main: str) -> tuple[str, ...]:
    """Where the application looks for its configuration, in its order."""
    if not main:
        return (_VERL_CONFIG,)
    return (main, *_declared_search_paths(main), _VERL_CONFIG)


def _declared_search_paths(main: str) -> list[str]:
    """`hydra.searchpath` of the yamls in the main folder; Hydra reads it from the chosen one."""
    folder = Path(main.removeprefix("file://"))
    if main.startswith("pkg://") or not folder.is_dir():
        return []
    found: list[str] = []
    for file in sorted(folder.glob("*.yaml")):
        content = OmegaConf.load(file)
        declared = OmegaConf.select(content, "hydra.searchpath") if content else None
        found += [str(path) for path in declared or []]
    return found


def _defaults() -> dict[str, Any]:
    """The `pcr` block with its defaults, and what it must know of the rest of the recipe."""
    # Imported here: Hydra scans this file in every application.
    from dataclasses import asdict

    from pcr_plugin.config import PCRSettings

    defaults = asdict(PCRSettings())
    defaults["recipe"] = {
        "use_kl_in_reward": "${oc.select:algorithm.use_kl_in_reward,false}",
        "distillation": "${oc.select:distillation.enabled,false}",
    }
    return defaults
