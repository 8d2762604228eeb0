"""Runs that differ in nothing but the seed are one configuration, and one curve."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pcr_plugin.plots.logs.log import Log
from pcr_plugin.plots.runs.run import Run
from pcr_plugin.plots.runs.settings import ALPHA, BETA, NAMED, RATE, RULE, SCOPE, STOCK

_LONGEST = 32  # characters of a value, a path for example
_OF_THE_RULE = (RULE, "preset", SCOPE, ALPHA)
_SIGNS = {BETA: "β", RATE: "lr", ALPHA: "α"}


@dataclass(frozen=True)
class Group:
    """Runs of one configuration.

    Attributes:
        title: the rule, the user's label, or the run's name.
        settings: that all of its runs share.
        varying: those of the settings that differ between groups; they are in the name.
        runs: one per seed.
        implied: those of the settings that the title tells already: a rule with one preset, say.
    """

    title: str
    settings: dict[str, Any]
    varying: tuple[str, ...]
    runs: tuple[Run, ...]
    implied: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Unique among the groups."""
        return self.name_without(())

    @property
    def logs(self) -> list[Log]:
        """Of its runs."""
        return [run.log for run in self.runs]

    def conditions(self) -> tuple[tuple[int, float, str], ...]:
        """Sortable; equal for groups that differ in the rule alone, which are to be compared."""
        keys = [key for key in self.varying if key not in _OF_THE_RULE]
        return tuple(_sortable(self.settings.get(key)) for key in keys)

    def rule(self) -> tuple[tuple[int, float, str], ...]:
        """Sortable, stock first; equal for groups of one rule (or label) under any conditions."""
        title = "" if self.settings.get(RULE) == STOCK else self.title
        return tuple(map(_sortable, [title, *(self.settings.get(key) for key in _OF_THE_RULE)]))

    def name_without(self, left_out: Sequence[str]) -> str:
        """The name of what it is compared as when some settings are on an axis."""
        title, *settings = self.identity_without(left_out)
        told = self.implied if title else ()
        parts = [
            f"{_SIGNS.get(key, _short(key))} {shown(value)}"
            for key, value in settings
            if key not in told
        ]
        return ", ".join([title, *parts] if title else parts)

    def identity_without(self, left_out: Sequence[str]) -> tuple[Any, ...]:
        """Equal for groups that differ in nothing but the settings that are left out."""
        titled_by_rule = self.title == self.settings.get(RULE)
        hidden = (*left_out, RULE) if titled_by_rule else tuple(left_out)
        title = "" if titled_by_rule and RULE in left_out else self.title
        kept = [key for key in self.varying if key in self.settings and key not in hidden]
        return (title, *((key, self.settings[key]) for key in kept))


def group(runs: Iterable[Run]) -> list[Group]:
    """Put repetitions together.

    Runs with a configuration are compared in all keys that bear on training, runs with a label in
    the label and the named settings alone. A run about which nothing is known stays alone.
    """
    runs = list(runs)
    varying = _telling(runs, differing(runs))
    together: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        together.setdefault(_identity(run, varying), []).append(run)
    implied = _implied(together)
    groups = [
        _group(identity[0], varying, members, implied.get(identity[0], frozenset()))
        for identity, members in together.items()
    ]
    return sorted(groups, key=lambda found: (found.conditions(), found.rule()))


def differing(runs: Iterable[Run]) -> list[str]:
    """Settings with several values among the runs that have them, the named ones first."""
    values: dict[str, set[Any]] = {}
    for run in runs:
        for key, value in run.settings.items():
            values.setdefault(key, set()).add(value)
    found = [key for key in values if len(values[key]) > 1]
    return [*(key for key in NAMED if key in found), *(key for key in found if key not in NAMED)]


def seeds_of(runs: Sequence[Run]) -> list[str]:
    """Each run's seed, by those of veRL's seeds that differ; empty where nothing is known."""
    keys = {key for run in runs for key in run.seeds}
    telling = sorted(key for key in keys if len({str(run.seeds.get(key)) for run in runs}) > 1)
    telling = telling or [key for key in ("seed", "data.seed") if key in keys]
    return [_seed(run, telling) for run in runs]


def shown(value: Any) -> str:
    """A setting's value, short."""
    if isinstance(value, tuple):
        return " ".join(str(each) for each in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else "…" + text[-_LONGEST:]


def _seed(run: Run, keys: list[str]) -> str:
    values = dict.fromkeys(str(run.seeds[key]) for key in keys if run.seeds.get(key) is not None)
    return "/".join(values)


def _telling(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """The named settings, and those of the others that do not follow from the ones before."""
    telling = [key for key in keys if key in NAMED]
    for key in keys:
        seen: dict[tuple[Any, ...], Any] = {}
        for run in runs:
            if key in run.settings:
                before = (run.label, *(run.settings.get(each) for each in telling))
                if seen.setdefault(before, run.settings[key]) != run.settings[key]:
                    telling.append(key)
                    break
    return telling


def _sortable(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (0, 0.0, "") if value is None else (2, 0.0, str(value))


def _title(run: Run) -> str:
    return run.label or run.settings.get(RULE) or run.name


def _identity(run: Run, varying: list[str]) -> tuple[Any, ...]:
    keys = [key for key in varying if run.label is None or key in NAMED]
    return (_title(run), *((key, run.settings.get(key)) for key in keys))


def _implied(identities: Iterable[tuple[Any, ...]]) -> dict[str, frozenset[str]]:
    """By title, the settings of the rule that all groups of that title have in common."""
    values: dict[str, dict[str, set[Any]]] = {}
    for title, *settings in identities:
        for key, value in settings:
            values.setdefault(title, {}).setdefault(key, set()).add(value)
    return {
        title: frozenset(key for key in _OF_THE_RULE if len(found.get(key, ())) == 1)
        for title, found in values.items()
    }


def _group(title: str, varying: list[str], runs: list[Run], implied: frozenset[str]) -> Group:
    first = runs[0].settings
    shared = {
        key: value
        for key, value in first.items()
        if all(run.settings.get(key) == value for run in runs)
    }
    return Group(title, shared, tuple(varying), tuple(runs), implied)


def _short(key: str) -> str:
    return key if key in NAMED else key.rsplit(".", 1)[-1]
