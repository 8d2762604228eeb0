"""One run: its metrics, its settings and its seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcr_plugin.plots.logs.find import LogFile, find
from pcr_plugin.plots.logs.log import Log
from pcr_plugin.plots.runs.configuration import configuration_of
from pcr_plugin.plots.runs.settings import NAMED, NUMBERS, number, settings_in, settings_of


@dataclass(frozen=True)
class Named:
    """A log and what the user says about it.

    Attributes:
        file: the log.
        label: the user's name for it, if any.
        settings: that replace those found, by the names of `NAMED`.
        seed: if given.
    """

    file: LogFile
    label: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    seed: Any = None


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: from its path.
        file: its log.
        log: its metrics.
        settings: see `settings_of`; empty of what is not known.
        seeds: veRL's seeds by key, or the user's as `seed`.
        source: where the configuration was read, `None` if nowhere.
        label: the user's name for it, if any.
    """

    name: str
    file: LogFile
    log: Log
    settings: dict[str, Any]
    seeds: dict[str, Any]
    source: Path | None
    label: str | None


def name_runs(paths: Iterable[Path], labels: list[str]) -> list[Named]:
    """The runs of the command line.

    Args:
        paths: files or folders.
        labels: none, or one for each path.

    Raises:
        ValueError: a path without a log, or another number of labels than of paths.
    """
    paths = list(paths)
    if labels and len(labels) != len(paths):
        raise ValueError(
            f"--label is given {len(labels)} times for {len(paths)} runs: "
            "give none, or one for each RUN in their order"
        )
    names: Sequence[str | None] = labels or [None] * len(paths)
    return [
        Named(file, label) for path, label in zip(paths, names, strict=True) for file in find(path)
    ]


def read_runs(named: Iterable[Named]) -> list[Run]:
    """Read every log once.

    Raises:
        ValueError: no runs, or one without steps.
    """
    by_path: dict[Path, Named] = {}
    for each in named:
        by_path[each.file.path.resolve()] = each  # twice the same file is not two seeds
    if not by_path:
        raise ValueError("no runs: name at least one RUN or give a table with --runs")
    names = _unique_names([each.file.path for each in by_path.values()])
    return [_read(name, each) for name, each in zip(names, by_path.values(), strict=True)]


def _read(name: str, named: Named) -> Run:
    log = named.file.read()
    found = configuration_of(named.file)
    settings, seeds = settings_of(found.values) if found else (settings_in(log), {})
    settings |= dict(named.settings)
    for key in NUMBERS:
        if key in settings:
            settings[key] = number(NAMED[key], settings[key])
    if named.seed is not None:
        seeds = {"seed": named.seed}
    source = found.source if found else None
    return Run(name, named.file, log, settings, seeds, source, named.label)


def _unique_names(paths: list[Path]) -> list[str]:
    """As few of the last parts of each path as tell them apart."""
    parts = [path.absolute().with_suffix("").parts for path in paths]
    longest = max(len(part) for part in parts)
    for count in range(1, longest + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
