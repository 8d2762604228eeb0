"""The tables of `docs/evidence.md`, by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from examples.study import design
from examples.study.comparison import Runs, by_point
from examples.study.pooled import pooled_table
from examples.study.price_tables import duel_table, price_table
from examples.study.recipe import Point
from examples.study.records import Found, Record
from examples.study.tables import (
    coverage_table,
    difference_table,
    point_table,
    prediction_table,
    version_table,
)

_CENTRE, _NOISY = design.CENTRE, design.NOISY
_AUTOMATIC = design.CANDIDATES[0]
# Does a strength from variances pay less than one that needs none?
_PIVOTAL = tuple((rule, rival) for rule in design.CANDIDATES for rival in design.FIXED)
# One choice at a time, at the centre: scale, floor, average.
_CHOICES = (
    (_AUTOMATIC, "pcr_absolute_floor_ema"),
    (_AUTOMATIC, "pcr_beta_floor_ema"),
    (_AUTOMATIC, "pcr_relative_ema"),
    (_AUTOMATIC, "pcr_relative_floor"),
    ("pcr_absolute_floor_ema", "paper"),
    ("pcr_beta_floor_ema", "pcr_beta"),
    ("pcgrad_floor", "pcgrad"),
    ("soft0.5_floor", "soft0.5"),
)


def tables(found: Found) -> Mapping[str, str]:
    """The tables by name.

    Args:
        found: the records of all tiers.
    """
    engine, full = (_of(found.records, tier) for tier in ("engine", "full"))
    wanted = {"engine": design.engine().points, "full": design.full().points}
    return {
        "versions": version_table(found.made_by),
        "runs": coverage_table(found.records, wanted),
        **_front(engine),
        **_rules(engine),
        **_rates_and_scopes(engine),
        **_noisy(engine),
        **_full(engine, full),
    }


def _of(records: Sequence[Record], tier: str) -> Runs:
    return by_point(record for record in records if record.tier == tier)


def _front(runs: Runs) -> Mapping[str, str]:
    betas = _betas(_CENTRE, design.BETAS)
    stock = _betas(_CENTRE, design.STOCK_BETAS)
    return {
        "front": point_table(runs, [*stock, *_each(design.FRONT, betas)]),
        "front stock": difference_table(
            runs, [point for point in stock if point != _CENTRE], beta=_CENTRE.beta
        ),
        "front one": point_table(runs, _each(design.FULL_RULES, _betas(_CENTRE, [1.0]))),
        "front tests": difference_table(runs, _each(design.FRONT, betas), rule="stock"),
        "front pooled": pooled_table(runs, design.FRONT, betas),
        "front prices": price_table(runs, _each(design.FRONT, betas)),
        "controls": price_table(runs, _betas(_CENTRE, design.CONTROLS)),
        "front duels": duel_table(runs, _PIVOTAL, betas),
    }


def _rules(runs: Runs) -> Mapping[str, str]:
    rules = (*design.FRONT, *design.OTHER_RULES)
    centre = [_CENTRE]
    return {
        "rules": point_table(runs, [*centre, *_each(rules, centre)]),
        "rules tests": difference_table(runs, _each(rules, centre), rule="stock"),
        "rules prices": price_table(runs, _each(design.OTHER_RULES, centre)),
        "rules duels": duel_table(runs, _CHOICES, centre),
    }


def _rates_and_scopes(runs: Runs) -> Mapping[str, str]:
    slow, rate, fast = (
        replace(_CENTRE, rate=each) for each in (design.SLOW, design.RATE, design.FAST)
    )
    faster = _each(design.FAST_RULES, [fast])
    scoped = _each(design.SCOPED, [replace(_CENTRE, scope=scope) for scope in design.SCOPES])
    stock = [*_betas(slow, design.SLOW_BETAS), rate, *_betas(fast, design.FAST_BETAS)]
    return {
        "rates": point_table(runs, [*stock, *_each(design.FAST_RULES, [rate]), *faster]),
        "rates tests": difference_table(runs, faster, rule="stock"),
        "rates more beta": difference_table(runs, faster, rule="stock", beta=design.FAST_BETAS[-1]),
        "rates prices": price_table(runs, faster),
        "scopes": point_table(runs, scoped),
        "scopes tests": difference_table(
            runs, [point for point in scoped if point.scope != _CENTRE.scope], scope=_CENTRE.scope
        ),
        "scopes prices": price_table(runs, scoped),
    }


def _noisy(runs: Runs) -> Mapping[str, str]:
    stock = _betas(_NOISY, design.NOISY_BETAS)
    rules = _each(design.NOISY_RULES, [_NOISY])
    own = [point for point in rules if point.rule not in design.FIXED]
    controls = stock[1:-1]  # its ends have nothing beyond them
    return {
        "noisy": point_table(runs, [*stock, *rules]),
        "noisy tests": difference_table(runs, rules, rule="stock"),
        "noisy prices": price_table(runs, [*controls, *rules]),
        "noisy against one": difference_table(runs, own, rule=design.FIXED[0]),
        "noisy against half": difference_table(runs, own, rule=design.FIXED[1]),
    }


def _full(engine: Runs, full: Runs) -> Mapping[str, str]:
    betas = _betas(_CENTRE, design.FULL_BETAS[0])
    points = _each(design.FULL_RULES, betas)
    return {
        "full": point_table(full, points),
        "full tests": difference_table(full, _each(design.FULL_RULES[1:], betas), rule="stock"),
        "prediction": prediction_table(engine, full, points, design.FULL_SIZES.steps),
    }


def _betas(point: Point, betas: Iterable[float]) -> list[Point]:
    return [replace(point, beta=beta) for beta in betas]


def _each(rules: Iterable[str], points: Sequence[Point]) -> list[Point]:
    return [replace(point, rule=rule) for rule in rules for point in points]
