"""Markdown tables of a study's records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import correlation

from examples.study.comparison import Paired, Runs, Value, over_seeds, paired
from examples.study.fronts import over_front
from examples.study.recipe import Point
from examples.study.records import Record
from pcr_plugin.plots.tables.statistics import Estimate


def _at(name: str, step: int | None = None) -> Value:
    return lambda record: record.at(name, step)


def _rise(name: str, step: int | None = None) -> Value:
    return lambda record: record.rise(name, step)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _mean_of(name: str) -> Value:
    return lambda record: record.means.get(name)


# Heading, value, digits.
COLUMNS: Sequence[tuple[str, Value, int]] = (
    ("solved", _at("solved"), 3),
    ("carried over", _at("carried over"), 3),
    ("skill, rise", _rise("skill"), 3),
    ("perplexity, rise", _rise("perplexity"), 2),
    ("KL on answers", _at("KL on answers"), 3),
    ("gradient norm, deviation", _mean_of("deviation of the gradient norm"), 3),
)
# What is tested: what is wanted, and what is not.
TESTED = (COLUMNS[0], COLUMNS[2], COLUMNS[3])
# What is paid for a score, less is better.
PRICES: Sequence[tuple[str, Value, int]] = (
    ("perplexity, rise", _rise("perplexity"), 2),
    ("skill, fall", lambda record: _negative(record.rise("skill")), 3),
    ("KL on answers", _at("KL on answers"), 3),
)
_OWN: Sequence[tuple[str, str]] = (("α", "alpha"), ("conflicts", "conflicts"))


def coverage_table(records: Sequence[Record], wanted: Mapping[str, Sequence[Point]]) -> str:
    """How much of the design has been run.

    Args:
        records: of all tiers.
        wanted: tier to the points of its design.
    """
    lines = [_row(["tier", "runs", "of the design", "whole seeds", "hours of one process"])]
    lines.append(_row(["---"] * 5))
    for tier, points in wanted.items():
        found = {record.point: record for record in records if record.tier == tier}
        seeds = sorted({point.seed for point in points})
        whole = [s for s in seeds if all(p in found for p in points if p.seed == s)]
        hours = sum(record.seconds for record in found.values()) / 3600
        cells = [str(len(found)), str(len(points)), ", ".join(map(str, whole)), f"{hours:.1f}"]
        lines.append(_row([tier, *cells]))
    return "\n".join(lines) + "\n"


def point_table(runs: Runs, points: Iterable[Point]) -> str:
    """A row per point: means over seeds with their standard errors.

    Args:
        runs: see `by_point`.
        points: of seed 0.
    """
    names = [*(name for name, _, _ in COLUMNS), *(name for name, _ in _OWN), "seeds"]
    lines = [_row(["rule", "β", "rate", "scope", *names]), _row(["---"] * (len(names) + 4))]
    for point in points:
        found = [(over_seeds(runs, point, value), digits) for _, value, digits in COLUMNS]
        if found[0][0] is None:
            continue
        own = [over_seeds(runs, point, _mean_of(name)) for _, name in _OWN]
        cells = [_estimate(each, digits) for each, digits in found]
        cells += [_mean(each) for each in own]
        scope = "" if point.rule == "stock" else point.scope
        said = [point.rule, f"{point.beta:g}", f"{point.rate:g}", scope]
        lines.append(_row([*said, *cells, str(found[0][0].count)]))
    return "\n".join(lines) + "\n"


def difference_table(
    runs: Runs, rules: Iterable[str], points: Sequence[Point], against: str
) -> str:
    """A row per rule: its differences from another, at each point and over all of them.

    Args:
        runs: see `by_point`.
        rules: that are compared.
        points: of any rule and seed; their rule is replaced.
        against: the rule that they are compared with.
    """
    names = [name for name, _, _ in TESTED]
    lines = [_row(["rule", "β", *names, "seeds"]), _row(["---"] * (len(names) + 3))]
    for rule in rules:
        own = [replace(point, rule=rule) for point in points]
        rows = [(f"{point.beta:g}", [point]) for point in own]
        if len(own) > 1:
            rows.append(("all", own))
        for beta, compared in rows:
            found = [
                (paired(runs, compared, lambda p: replace(p, rule=against), value), digits)
                for _, value, digits in TESTED
            ]
            if found[0][0] is not None:
                cells = [_difference(each, digits) for each, digits in found]
                seeds = str(found[0][0].difference.count)
                lines.append(_row([rule, beta, *cells, seeds]))
    return "\n".join(lines) + "\n"


def front_table(
    runs: Runs, rules: Iterable[str], points: Sequence[Point], betas: Sequence[float]
) -> str:
    """A row per rule: what it pays more than stock where both solve as much.

    Args:
        runs: see `by_point`.
        rules: that are compared.
        points: of any rule and seed; their rule is replaced.
        betas: of the stock runs between which its price is read.
    """
    names = [name for name, _, _ in PRICES]
    lines = [_row(["rule", *names, "seeds"]), _row(["---"] * (len(names) + 2))]
    for rule in rules:
        own = [replace(point, rule=rule) for point in points]
        found = [
            (over_front(runs, own, betas, COLUMNS[0][1], price), digits)
            for _, price, digits in PRICES
        ]
        first = found[0][0]
        if first is not None:
            cells = [_difference(each, digits) for each, digits in found]
            lines.append(_row([rule, *cells, str(first.difference.count)]))
    return "\n".join(lines) + "\n"


def prediction_table(engine: Runs, full: Runs, points: Iterable[Point], step: int) -> str:
    """What either tier found at one step, and how well the one tells the other.

    Args:
        engine: runs of that tier.
        full: of the other.
        points: of any seed.
        step: at which both were measured.
    """
    values = (
        ("solved", _at("solved", step), 3),
        ("skill, rise", _rise("skill", step), 3),
        ("perplexity, rise", _rise("perplexity", step), 2),
    )
    columns = [
        (f"{name}: {tier}", runs, value, digits)
        for name, value, digits in values
        for tier, runs in (("engine", engine), ("full", full))
    ]
    lines = [_row(["rule", "β", *(head for head, *_ in columns)])]
    lines.append(_row(["---"] * (len(columns) + 2)))
    rows = []
    for point in points:
        found = [over_seeds(runs, point, value) for _, runs, value, _ in columns]
        means = [each.mean for each in found if each is not None]
        if len(means) == len(columns):  # else one tier has not run it
            rows.append(means)
            shown = [
                _estimate(each, column[-1]) for each, column in zip(found, columns, strict=True)
            ]
            lines.append(_row([point.rule, f"{point.beta:g}", *shown]))
    if len(rows) > 2:
        by_column = list(zip(*rows, strict=True))
        told = [_correlation(*by_column[index : index + 2]) for index in range(0, len(columns), 2)]
        lines.append(_row(["correlation", "", *(cell for each in told for cell in (each, ""))]))
    return "\n".join(lines) + "\n"


def _correlation(ours: Sequence[float], theirs: Sequence[float]) -> str:
    constant = len(set(ours)) == 1 or len(set(theirs)) == 1
    return "" if constant else f"{correlation(ours, theirs):.2f}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _estimate(found: Estimate | None, digits: int) -> str:
    if found is None:
        return ""
    error = "" if found.error is None else f" ± {found.error:.{digits}f}"
    return f"{found.mean:.{digits}f}{error}"


def _mean(found: Estimate | None) -> str:
    return "" if found is None else f"{found.mean:.2f}"


def _difference(found: Paired | None, digits: int) -> str:
    if found is None:
        return ""
    shown = f"{found.difference.mean:+.{digits}f}"
    if found.p_value is None:
        return shown
    p = "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
    return f"{shown} (p {p})"
