"""A run's configuration, from what Hydra and veRL leave beside the log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pcr_plugin.plots.logs.console import printed_configuration
from pcr_plugin.plots.logs.find import LogFile, console_logs

_HYDRA = Path(".hydra") / "config.yaml"
# veRL's default places: outputs/<day>/<time>/.hydra, and <project>/<experiment>.jsonl or
# tensorboard_log/<project>/<experiment>, all below the working directory.
_LEVELS_UP = 3


@dataclass(frozen=True)
class Configuration:
    """All keys of a run.

    Attributes:
        values: dotted key to value.
        source: the file it was read from.
    """

    values: Mapping[str, Any]
    source: Path


def configuration_of(log: LogFile) -> Configuration | None:
    """The run's configuration, `None` if there is none that is certainly its own.

    Looked for are, in this order: Hydra's `.hydra` in the log's folder; what veRL printed into the
    log itself or into the only other console log there; Hydra's `.hydra` in the folders above or
    their `outputs/*/*`, if project and experiment are those in the log's path (the newest);
    the only one in `outputs/*/*` of the log's folder.
    """
    own = log.folder / _HYDRA
    if own.is_file():
        return _from_hydra(own)
    printed = [log.path] if log.kind == "console" else console_logs(log.folder)
    found = [Configuration(_flat(values), path) for path, values in _printed(printed)]
    if len(found) == 1:
        return found[0]
    return _by_name(log) or _only_output(log.folder)


def _printed(paths: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in paths:
        values = printed_configuration(path)
        if values is not None:
            yield path, values


def _by_name(log: LogFile) -> Configuration | None:
    path = log.path.absolute()
    if log.kind == "TensorBoard" and path.is_file():
        path = path.parent
    name = (path.parent.name, path.stem if path.is_file() else path.name)
    for folder in list(path.parents)[:_LEVELS_UP]:
        for file in [folder / _HYDRA, *_outputs(folder)]:
            if file.is_file():
                found = _from_hydra(file)
                keys = ("trainer.project_name", "trainer.experiment_name")
                if tuple(found.values.get(key) for key in keys) == name:
                    return found
    return None


def _only_output(folder: Path) -> Configuration | None:
    files = _outputs(folder)
    return _from_hydra(files[0]) if len(files) == 1 else None


def _outputs(folder: Path) -> list[Path]:
    """Newest first: Hydra names them by day and time."""
    return sorted((folder / "outputs").glob(f"*/*/{_HYDRA}"), reverse=True)


@cache  # several logs may ask for the same folder's
def _from_hydra(path: Path) -> Configuration:
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} is {type(values).__name__}, not Hydra's mapping of keys")
    return Configuration(_flat(values), path)


def _flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys; a list is one value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
