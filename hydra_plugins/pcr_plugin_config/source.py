"""veRL's actor yamls, as the application would find them, with our keys added."""

from collections.abc import Iterator
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

PROVIDER = "pcr_plugin"
# veRL's actor yamls, and the class of ours for the class that they name.
_ACTORS = ("dp_actor", "megatron_actor", "torchtitan_actor", "veomni_actor")
_KINDS = ("FSDP", "Mcore", "TorchTitan", "VeOmni")
_CLASSES = {
    f"verl.workers.config.{kind}ActorConfig": f"pcr_plugin.verl.actor_config.PCR{kind}ActorConfig"
    for kind in _KINDS
}
_SCHEME = "pcr-plugin"
# A file of ours that comes with every such actor: our checks before the application's own main
# function. The fully asynchronous trainer's builds no configuration of the actor, so that the
# first to find a mistake would be a worker.
_CHECK = "pcr_plugin/check_in_driver"
_CALLBACK = {"_target_": "pcr_plugin.verl.in_driver.CheckInDriver"}


class Entry(str):
    """Our path in Hydra's search path, which also knows the list that it stands in.

    The list is complete only later: Hydra appends the folder of `--config-dir`, and copies the
    list (deeply, so that the copy of this entry knows the copied list) to append what
    `hydra.searchpath` names in the primary configuration or on the command line.

    Args:
        search_path: the list that the entry is put into.
    """

    search_path: ConfigSearchPath

    def __new__(cls, search_path: ConfigSearchPath, text: str = f"{_SCHEME}://actor") -> "Entry":
        entry = super().__new__(cls, text)
        entry.search_path = search_path
        return entry

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Arguments for a copy, whose attributes are copied after it was made."""
        return (None, str(self))


class PCRConfigSource(ConfigSource):
    """Scheme `pcr-plugin`: answers for `actor/<veRL's actor>` and for a file that it adds to it.

    The file is looked up where the application would find it without us, so a recipe's own
    `actor/dp_actor.yaml` is kept. Our keys are added only if the file names a configuration
    class of veRL.

    Args:
        provider: who put us into the search path.
        path: our `Entry` there.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, str(path))
        # Hydra's scan makes classes of its own from this file, so that types do not tell.
        self._search_path: ConfigSearchPath | None = getattr(path, "search_path", None)

    @staticmethod
    def scheme() -> str:
        """The scheme in Hydra's search path."""
        return _SCHEME

    def available(self) -> bool:
        """Always: whether a file is there is asked for each."""
        return True

    def is_group(self, config_path: str) -> bool:
        """We add no group; the application's own sources have them."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Whether this is one of veRL's actor yamls that exists, or the file that we add."""
        path = config_path.removesuffix(".yaml")
        group, _, name = path.rpartition("/")
        if path == _CHECK:
            return True
        return group == "actor" and name in _ACTORS and self._origin(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """We add no option; the application's own sources list them."""
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        """The application's file with `update_rule`, `pcr` and our `_target_`.

        Args:
            config_path: for example `actor/dp_actor`.
        """
        if config_path.removesuffix(".yaml") == _CHECK:
            return self._check()
        origin = self._origin(config_path)
        assert origin is not None, "is_config was asked first"
        result = origin.load_config(config_path)
        target = result.config.get("_target_")
        if target in _CLASSES:
            result.config["_target_"] = _CLASSES[target]
            result.config["update_rule"] = None
            result.config["pcr"] = _defaults()
            if "defaults" not in result.config:
                result.config["defaults"] = ["_self_"]
            result.config["defaults"].append(f"/{_CHECK}")
        return result

    def _check(self) -> ConfigResult:
        return ConfigResult(
            provider=self.provider,
            path=f"{_SCHEME}://{_CHECK}",
            config=OmegaConf.create({"hydra": {"callbacks": {PROVIDER: _CALLBACK}}}),
            header={"package": "_global_"},
        )

    def _origin(self, config_path: str) -> ConfigSource | None:
        return next((source for source in self._others() if source.is_config(config_path)), None)

    def _others(self) -> Iterator[ConfigSource]:
        """The application's sources in its order, without the schemas, which are no files."""
        if self._search_path is None:
            return
        for entry in self._search_path.get_path():
            if entry.provider not in (self.provider, "schema") and entry.path is not None:
                scheme = entry.path.split("://")[0] if "://" in entry.path else "file"
                kind = SourcesRegistry.instance().resolve(scheme)
                yield kind(entry.provider or self.provider, entry.path)


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
