"""Rules against stock over all betas of a front at once."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from examples.study import cells
from examples.study.comparison import Runs, Value, seeds_of
from examples.study.recipe import Point
from examples.study.tables import TESTED, rise_of
from pcr_plugin.plots.tables.statistics import Estimate, estimate

_LOSS = rise_of("skill loss")


def pooled_table(runs: Runs, rules: Iterable[str], points: Sequence[Point]) -> str:
    """A row per rule: means over points and seeds, with the 95 % interval over seeds.

    Args:
        runs: see `by_point`.
        rules: that are compared with stock.
        points: of any rule; a seed that lacks one of them, or stock there, does not count.
    """
    heads = [name for name, *_ in TESTED]
    lines = cells.heading(["rule", *heads, "skill loss as a share of stock's", "seeds"])
    for rule in rules:
        found = [(estimate(_differences(runs, rule, points, v)), n) for _, v, n in TESTED]
        if found[0][0] is None:
            continue
        share = estimate(_shares(runs, rule, points))
        shown = [_interval(each, digits, signed=True) for each, digits in found]
        seeds = str(found[0][0].count)
        lines.append(cells.row([rule, *shown, _interval(share, 2), seeds]))
    return "\n".join(lines) + "\n"


def _differences(runs: Runs, rule: str, points: Sequence[Point], value: Value) -> Iterable[float]:
    for own, stock in _means(runs, rule, points, value):
        yield own - stock


def _shares(runs: Runs, rule: str, points: Sequence[Point]) -> Iterable[float]:
    for own, stock in _means(runs, rule, points, _LOSS):
        yield own / stock


def _means(
    runs: Runs, rule: str, points: Sequence[Point], value: Value
) -> Iterable[tuple[float, float]]:
    """Of every seed: the rule's mean over the points, and that of stock."""
    ours, stock = (
        [seeds_of(runs, replace(point, rule=each)) for point in points] for each in (rule, "stock")
    )
    both = [*ours, *stock]
    for seed in sorted(set.intersection(*(set(each) for each in both)) if both else ()):
        found = [[value(each[seed]) for each in kind] for kind in (ours, stock)]
        whole = [[each for each in kind if each is not None] for kind in found]
        if len(whole[0]) == len(whole[1]) == len(points):
            yield fmean(whole[0]), fmean(whole[1])


def _interval(found: Estimate | None, digits: int, *, signed: bool = False) -> str:
    if found is None:
        return ""
    sign = "+" if signed else ""
    shown = f"{found.mean:{sign}.{digits}f}"
    if found.half_width is None:
        return shown
    low, high = found.mean - found.half_width, found.mean + found.half_width
    return f"{shown} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"
