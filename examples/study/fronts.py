"""Rules at equal score: a rule may be another way along the front that stock has with beta."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

from examples.study.comparison import Paired, Runs, Value, tested
from examples.study.recipe import Point


def on_front(score: float, front: Sequence[tuple[float, float]]) -> float | None:
    """The price of a score, between two points of a front.

    Args:
        score: of another rule.
        front: (score, price), of the largest beta first. Where a score is there twice, the point
            of the larger beta counts.

    Returns:
        `None` where no two points have the score between them.
    """
    for (low, cheap), (high, dear) in pairwise(front):
        if low <= score <= high:
            share = (score - low) / (high - low) if high > low else 0.0
            return cheap + share * (dear - cheap)
    return None


def over_front(
    runs: Runs, points: Sequence[Point], betas: Sequence[float], score: Value, price: Value
) -> Paired | None:
    """What a rule pays more than stock does for the same score, seed by seed.

    Args:
        runs: of one tier.
        points: of the rule, of any seed; a seed counts with the mean over those that stock can
            match.
        betas: of the stock runs that are the front.
        score: more is better.
        price: less is better.
    """
    seeds = sorted({found.seed for found in runs})
    means = [
        fmean(paid)
        for seed in seeds
        if (paid := _over_front_of(runs, points, betas, score, price, seed))
    ]
    return tested(means)


def _over_front_of(
    runs: Runs,
    points: Sequence[Point],
    betas: Sequence[float],
    score: Value,
    price: Value,
    seed: int,
) -> list[float]:
    stock = [replace(points[0], rule="stock", scope="mlp", beta=beta) for beta in betas]
    front = [_of(runs, point, seed, score, price) for point in stock]
    known = [pair for pair in reversed(front) if pair is not None]
    found = []
    for point in points:
        pair = _of(runs, point, seed, score, price)
        theirs = None if pair is None else on_front(pair[0], known)
        if pair is not None and theirs is not None:
            found.append(pair[1] - theirs)
    return found


def _of(
    runs: Runs, point: Point, seed: int, score: Value, price: Value
) -> tuple[float, float] | None:
    record = runs.get(replace(point, seed=seed))
    if record is None:
        return None
    values = score(record), price(record)
    return (values[0], values[1]) if values[0] is not None and values[1] is not None else None
