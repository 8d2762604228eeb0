"""Rules against stock: means over seeds, and tests of differences between runs of one seed."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from examples.study.recipe import Point
from examples.study.records import Record
from pcr_plugin.plots.tables.statistics import Estimate, estimate, t_probability

# Of a record; what its run did not measure is `None`.
Value = Callable[[Record], float | None]
Runs = Mapping[Point, Record]


@dataclass(frozen=True)
class Paired:
    """A difference between two kinds of runs, seed by seed.

    Attributes:
        difference: its mean over the seeds that both have.
        p_value: of Student's test of no difference, two-sided; `None` with fewer than two seeds.
    """

    difference: Estimate
    p_value: float | None


def by_point(records: Iterable[Record]) -> Runs:
    """Records of one tier by what they are.

    Args:
        records: each point once.
    """
    return {record.point: record for record in records}


def over_seeds(runs: Runs, point: Point, value: Value) -> Estimate | None:
    """Mean over the seeds of a point.

    Args:
        runs: see `by_point`.
        point: of any seed.
        value: of a record.

    Returns:
        `None` if no seed has it.
    """
    found = [value(record) for record in seeds_of(runs, point).values()]
    return estimate(each for each in found if each is not None)


def paired(
    runs: Runs, point: Point, other: Callable[[Point], Point], value: Value
) -> Paired | None:
    """Student's paired test over seeds.

    Runs of one seed see the same questions in the same order, so that their difference has less
    spread than either.

    Args:
        runs: see `by_point`.
        point: of any seed.
        other: what it is compared with.
        value: of a record.

    Returns:
        `None` if no seed has both.
    """
    theirs = seeds_of(runs, other(point))
    found = []
    for seed, record in seeds_of(runs, point).items():
        pair = value(record), value(theirs[seed]) if seed in theirs else None
        if pair[0] is not None and pair[1] is not None:
            found.append(pair[0] - pair[1])
    return tested(found)


def tested(differences: Iterable[float]) -> Paired | None:
    """Student's test of no difference.

    Args:
        differences: one per seed.

    Returns:
        `None` without any.
    """
    found = estimate(differences)
    return None if found is None else Paired(found, _p_value(found))


def seeds_of(runs: Runs, point: Point) -> dict[int, Record]:
    """The runs of a point, by seed.

    Args:
        runs: see `by_point`.
        point: of any seed.
    """
    seeds = sorted({found.seed for found in runs})
    return {seed: runs[own] for seed in seeds if (own := replace(point, seed=seed)) in runs}


def _p_value(difference: Estimate) -> float | None:
    if difference.error is None:
        return None
    if difference.error == 0:
        return 1.0 if difference.mean == 0 else 0.0
    t = abs(difference.mean) / difference.error
    return max(0.0, 1 - t_probability(t, difference.count - 1)) if math.isfinite(t) else 0.0
