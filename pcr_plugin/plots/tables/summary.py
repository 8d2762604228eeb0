"""One row per configuration, for the report's table."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, variance

from pcr_plugin.plots.logs.log import Log
from pcr_plugin.plots.runs.groups import Group, seeds_of
from pcr_plugin.plots.tables.curves import change, final, over_seeds, typical
from pcr_plugin.plots.tables.keys import ALPHA, GRADIENT_NORM, KL, seconds_key
from pcr_plugin.plots.tables.statistics import Estimate
from pcr_plugin.plots.tables.study import Study


@dataclass(frozen=True)
class Row:
    """A configuration.

    Attributes:
        name: of the configuration.
        runs: how many.
        seeds: of the runs, those that are known.
        steps: the last step of the shortest and of the longest run.
        cells: heading to mean over seeds; `None` if it was not logged.
    """

    name: str
    runs: int
    seeds: list[str]
    steps: tuple[int, int]
    cells: dict[str, Estimate | None]


def rows(study: Study) -> list[Row]:
    """The table."""
    columns = _columns(study)
    return [_row(group, columns) for group in study.groups]


def _row(group: Group, columns: dict[str, Callable[[Log], float | None]]) -> Row:
    last = [max(log.steps) for log in group.logs]
    return Row(
        name=group.name,
        runs=len(group.runs),
        seeds=[seed for seed in seeds_of(group.runs) if seed],
        steps=(min(last), max(last)),
        cells={
            heading: over_seeds([column(log) for log in group.logs])
            for heading, column in columns.items()
        },
    )


def _columns(study: Study) -> dict[str, Callable[[Log], float | None]]:
    score, perplexity, seconds = study.score, study.perplexity, seconds_key(study.logs)
    columns: dict[str, Callable[[Log], float | None]] = {}
    if score:
        columns["score"] = lambda log: final(log, score)
    if perplexity:
        columns[study.perplexity_name] = lambda log: final(log, perplexity)
        columns[f"change of {study.perplexity_name}"] = lambda log: change(log, perplexity)
    columns["KL"] = lambda log: final(log, KL)
    columns["gradient norm, mean"] = lambda log: _over_steps(log, fmean, 1)
    columns["gradient norm, variance"] = lambda log: _over_steps(log, variance, 2)
    columns["α, mean over steps"] = lambda log: _mean(log, ALPHA)
    if seconds:
        columns["s per step, median"] = lambda log: typical(log, seconds)
    return columns


def _over_steps(log: Log, statistic: Callable[[list[float]], float], least: int) -> float | None:
    values = list(log.finite(GRADIENT_NORM).values())
    return statistic(values) if len(values) >= least else None


def _mean(log: Log, metric: str) -> float | None:
    values = list(log.finite(metric).values())
    return fmean(values) if values else None
