"""Means over seeds, Student's t, and the Pareto front."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        error: standard error of the mean; `None` with one value, which says nothing of a spread.
        half_width: of the 95 % interval by Student's t; `None` with one value.
        count: how many values.
    """

    mean: float
    error: float | None
    half_width: float | None
    count: int


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean, standard error and interval of values of independent seeds; `None` without a value.

    Args:
        values: finite numbers.
    """
    values = list(values)
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], None, None, 1)
    error = stdev(values) / math.sqrt(len(values))
    width = error * t_quantile(len(values) - 1)
    return Estimate(fmean(values), error, width, len(values))


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """The t with the probability `level` between -t and t.

    Args:
        degrees: of freedom, from 1.
        level: below 1.
    """
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if t_probability(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return high


def t_probability(t: float, degrees: int) -> float:
    """Probability between -t and t: Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for index in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine**2 * (index - 1) / index
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other one beats.

    Args:
        points: (score, perplexity); more score and less perplexity are better.

    Returns:
        Indices in the order of perplexity. A point is out if another is at least as good in both
        and better in one.
    """
    front: list[int] = []
    order = sorted(range(len(points)), key=lambda index: (points[index][1], -points[index][0]))
    for index in order:
        best = points[front[-1]] if front else (-math.inf, math.inf)
        if points[index][0] > best[0] or points[index] == best:
            front.append(index)
    return front
