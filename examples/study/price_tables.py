"""Markdown tables of what rules pay more than stock for what they score."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from examples.study import cells
from examples.study.comparison import Runs, over_seeds
from examples.study.fronts import COSTS, Priced, by_all, by_beta, duel, priced
from examples.study.recipe import Point

_DIGITS = {"perplexity": 2, "skill": 3, "KL": 3}


def price_table(runs: Runs, points: Iterable[Point]) -> str:
    """A row per point: its prices over both fronts of stock.

    Stock itself is priced over the other betas alone, as a control.

    Args:
        runs: see `by_point`.
        points: of any seed.
    """
    prices = [f"{name}: {front}" for name in COSTS for front in ("β", "all")]
    names = [*cells.NAMES, "training success", *prices, "on front: β", "all"]
    lines = cells.heading(names)
    for point in points:
        score = over_seeds(runs, point, lambda record: record.at("solved"))
        if score is None:
            continue
        beta = priced(runs, point, by_beta(runs, point))
        every = None if point.rule == "stock" else priced(runs, point, by_all(runs, point))
        shown = [_price(front, name) for name in COSTS for front in (beta, every)]
        counts = [_count(front) for front in (beta, every)]
        lines.append(cells.row([*cells.named(point), cells.mean(score, 3), *shown, *counts]))
    return "\n".join(lines) + "\n"


def duel_table(runs: Runs, pairs: Iterable[tuple[str, str]], points: Sequence[Point]) -> str:
    """A row per pair of rules: what the first pays less or more than the second.

    Args:
        runs: see `by_point`.
        pairs: a rule, and the one that it is compared with.
        points: of any rule and seed; their rule is replaced.
    """
    lines = cells.heading(["rule", "against", *COSTS, "seeds", "runs"])
    for rule, rival in pairs:
        found = duel(runs, [replace(point, rule=rule) for point in points], rival)
        if found.run:
            told = found.differences.items()
            shown = [cells.difference(each, _DIGITS[name]) for name, each in told]
            counts = [str(found.seeds), f"{found.compared} of {found.run}"]
            lines.append(cells.row([rule, rival, *shown, *counts]))
    return "\n".join(lines) + "\n"


def _price(found: Priced | None, cost: str) -> str:
    paid = None if found is None else found.of(cost)
    return "" if paid is None else cells.mean(paid.difference, _DIGITS[cost], signed=True)


def _count(found: Priced | None) -> str:
    """Seeds on the front, of those that were run."""
    if found is None:
        return ""
    beyond = f", {found.beyond} beyond" if found.beyond else ""
    return f"{len(found.by_seed)} of {found.run}{beyond}"
