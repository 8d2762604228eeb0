"""Markdown tables of a study's records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import correlation, median
from typing import Any

from examples.study import cells
from examples.study.comparison import Runs, Value, over_seeds, paired
from examples.study.recipe import Point
from examples.study.records import Record


def _at(name: str, step: int | None = None) -> Value:
    return lambda record: record.at(name, step)


def rise_of(name: str, step: int | None = None) -> Value:
    """What was measured minus what it was at the start, see `Record.rise`."""
    return lambda record: record.rise(name, step)


def _mean_of(name: str) -> Value:
    return lambda record: record.means.get(name)


def _in_conflicts(record: Record) -> float | None:
    """The effective beta of blocks in conflict; of all others it is beta."""
    share, mean = record.means.get("conflicts"), record.means.get("effective beta")
    if not share or mean is None:
        return None
    return (mean - (1 - share) * record.point.beta) / share


def _variance(record: Record) -> float | None:
    """Of the gradient norm over the steps."""
    return record.means["deviation of the gradient norm"] ** 2


def _spread(record: Record) -> float | None:
    """Of the gradient norm over the steps, as a share of its mean."""
    mean = record.means["gradient norm"]
    return record.means["deviation of the gradient norm"] / mean if mean else None


# Heading, value, digits.
COLUMNS: Sequence[tuple[str, Value, int]] = (
    ("training success", _at("solved"), 3),
    ("carried over", _at("carried over"), 3),
    ("skill, rise", rise_of("skill"), 3),
    ("skill loss, rise", rise_of("skill loss"), 3),
    ("perplexity, rise", rise_of("perplexity"), 2),
    ("KL on answers", _at("KL on answers"), 3),
    ("gradient norm", _mean_of("gradient norm"), 2),
    ("norm's variance", _variance, 3),
    ("norm's deviation / mean", _spread, 3),
    ("clipped", _mean_of("clipped steps"), 2),
)
# What is tested: what is wanted, what is not, and how restless the steps are.
TESTED = (COLUMNS[0], *COLUMNS[2:6], *COLUMNS[7:9])
_OWN: Sequence[tuple[str, Value, int]] = (
    ("α", _mean_of("alpha"), 2),
    ("β_eff", _mean_of("effective beta"), 3),
    ("conflicts", _mean_of("conflicts"), 2),
    ("β_eff in them", _in_conflicts, 3),
)


def coverage_table(records: Sequence[Record], wanted: Mapping[str, Sequence[Point]]) -> str:
    """How much of the design has been run.

    Args:
        records: of all tiers.
        wanted: tier to the points of its design.
    """
    heads = ["tier", "runs", "of the design", "whole seeds"]
    heads += ["median seconds", "runs x median, hours"]
    lines = cells.heading(heads)
    for tier, points in wanted.items():
        found = {record.point: record for record in records if record.tier == tier}
        seeds = sorted({point.seed for point in points})
        whole = [s for s in seeds if all(p in found for p in points if p.seed == s)]
        # Some runs were slowed by what else the machine did.
        middle = median([record.seconds for record in found.values()] or [0])
        time = [f"{middle:.0f}", f"{len(found) * middle / 3600:.1f}"]
        seeds_told = ", ".join(map(str, whole))
        lines.append(cells.row([tier, str(len(found)), str(len(points)), seeds_told, *time]))
    return "\n".join(lines) + "\n"


def version_table(made_by: Mapping[str, str]) -> str:
    """What all runs were made by, side by side.

    Args:
        made_by: see `Found`.
    """
    if not made_by:
        return ""
    return "\n".join([*cells.heading(list(made_by)), cells.row(made_by.values())]) + "\n"


def point_table(runs: Runs, points: Iterable[Point]) -> str:
    """A row per point: means over seeds with their standard errors.

    Args:
        runs: see `by_point`.
        points: of seed 0.
    """
    names = [*cells.NAMES, *(name for name, *_ in (*COLUMNS, *_OWN)), "seeds"]
    lines = cells.heading(names)
    for point in points:
        found = [(over_seeds(runs, point, value), digits) for _, value, digits in COLUMNS]
        if found[0][0] is None:
            continue
        shown = [cells.mean(each, digits) for each, digits in found]
        for _, value, digits in _OWN:
            own = over_seeds(runs, point, value)
            shown.append("" if own is None else f"{own.mean:.{digits}f}")
        lines.append(cells.row([*cells.named(point), *shown, str(found[0][0].count)]))
    return "\n".join(lines) + "\n"


def difference_table(runs: Runs, points: Iterable[Point], **other: Any) -> str:
    """A row per point: its differences from another one.

    Args:
        runs: see `by_point`.
        points: of any seed.
        **other: what the other one differs in.
    """
    lines = cells.heading([*cells.NAMES, *(name for name, *_ in TESTED), "seeds"])
    for point in points:
        found = [
            (paired(runs, point, lambda own: replace(own, **other), value), digits)
            for _, value, digits in TESTED
        ]
        if found[0][0] is not None:
            shown = [cells.difference(each, digits) for each, digits in found]
            seeds = str(found[0][0].difference.count)
            lines.append(cells.row([*cells.named(point), *shown, seeds]))
    return "\n".join(lines) + "\n"


def prediction_table(engine: Runs, full: Runs, points: Iterable[Point], step: int) -> str:
    """What either tier found at one step, and how well the one tells the other.

    Args:
        engine: runs of that tier.
        full: of the other.
        points: of any seed. Of each all seeds count that a tier has run: the answers are drawn
            anew in either, so that runs of one seed have no more than the questions in common.
        step: at which both were measured.
    """
    values = (
        ("training success", _at("solved", step), 3),
        ("skill loss, rise", rise_of("skill loss", step), 3),
        ("perplexity, rise", rise_of("perplexity", step), 2),
    )
    columns = [
        (f"{name}: {tier}", runs, value, digits)
        for name, value, digits in values
        for tier, runs in (("engine", engine), ("full", full))
    ]
    lines = cells.heading(["rule", "β", *(head for head, *_ in columns), "seeds: engine", "full"])
    rows = []
    for point in points:
        found = [over_seeds(runs, point, value) for _, runs, value, _ in columns]
        means = [each.mean for each in found if each is not None]
        if len(means) == len(columns):  # else one tier has not run it
            rows.append(means)
            shown = [
                cells.mean(each, column[-1]) for each, column in zip(found, columns, strict=True)
            ]
            seeds = [str(each.count) for each in found[:2] if each is not None]
            lines.append(cells.row([point.rule, f"{point.beta:g}", *shown, *seeds]))
    if len(rows) > 2:
        by_column = list(zip(*rows, strict=True))
        told = [_correlation(*by_column[index : index + 2]) for index in range(0, len(columns), 2)]
        shown = [cell for each in told for cell in (each, "")]
        lines.append(cells.row(["correlation", "", *shown, "", ""]))
    return "\n".join(lines) + "\n"


def _correlation(ours: Sequence[float], theirs: Sequence[float]) -> str:
    constant = len(set(ours)) == 1 or len(set(theirs)) == 1
    return "" if constant else f"{correlation(ours, theirs):.2f}"
