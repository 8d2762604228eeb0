"""What a rule pays more than stock does for the same score.

A rule that keeps more of the KL learns less and forgets less, as stock does with a larger beta. So
it is measured against the fronts that stock has: curves of score and cost through its means over
seeds, straight between neighbouring points.

- `by_beta`: what beta alone buys, at the rule's rate and questions of a step, at the last step.
- `by_all`: the best of all that stock was run with, whatever its beta and rate, stopped at any
  measured step. Its points were chosen among many after the fact, a rule's one was not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from examples.study.comparison import Paired, Runs, seeds_of, tested
from examples.study.recipe import Point
from examples.study.records import Record
from pcr_plugin.plots.tables.statistics import pareto_front

# Of a record at a step, the last one if it is `None`.
Measure = Callable[[Record, int | None], float | None]
# Score and cost, both rising.
Front = Sequence[tuple[float, float]]
# By the names of the costs.
Fronts = Mapping[str, Front]


COSTS: Mapping[str, Measure] = {
    "perplexity": lambda record, step: record.rise("perplexity", step),
    # The share of right answers stays at 1 for long, and then moves in steps.
    "skill": lambda record, step: record.rise("skill loss", step),
    "KL": lambda record, step: record.at("KL on answers", step),
}


def _score(record: Record, step: int | None) -> float | None:
    return record.at("solved", step)


@dataclass(frozen=True)
class Priced:
    """A point's costs over a front, seed by seed.

    Attributes:
        by_seed: of the seeds whose score lies on the front, a price per cost.
        run: how many seeds there are.
        beyond: how many of them have a score that is above all of the front.
    """

    by_seed: Mapping[int, Mapping[str, float]]
    run: int
    beyond: int

    def of(self, cost: str) -> Paired | None:
        """Mean over seeds, and the test of no price.

        Args:
            cost: of `COSTS`.

        Returns:
            `None` if no seed's score lies on the front.
        """
        return tested(prices[cost] for prices in self.by_seed.values())


def front_of(points: Iterable[tuple[float, float]]) -> Front:
    """The least that stock pays for a score, the cheapest first.

    Args:
        points: (score, cost) of stock.

    Returns:
        The points that no other one beats. Below their scores, down to the lowest that stock was
        seen with, the cheapest of them counts: stock has more for that.
    """
    each_once = sorted(set(points))
    front = [each_once[index] for index in pareto_front(each_once)]
    if front and each_once[0][0] < front[0][0]:
        return [(each_once[0][0], front[0][1]), *front]
    return front


def on_front(score: float, front: Front) -> float | None:
    """What a score costs, between two points of a front.

    Args:
        score: of another rule.
        front: see `front_of`.

    Returns:
        `None` where no two points have the score between them.
    """
    for (low, cheap), (high, dear) in pairwise(front):
        if low <= score <= high:
            return cheap + (score - low) / (high - low) * (dear - cheap)
    return None


def by_beta(runs: Runs, point: Point) -> Fronts:
    """Stock with other betas, all else as it is at the point.

    Args:
        runs: of one tier.
        point: of any rule. If it is stock itself, it is left out: a control, for stock is on its
            own front.
    """
    stock = [each for each in _stock(runs, point) if each.rate == point.rate]
    left_out = point.beta if point.rule == "stock" else None
    places = [(each, None) for each in stock if each.beta != left_out]
    return _fronts(runs, places)


def by_all(runs: Runs, point: Point) -> Fronts:
    """Stock with any beta and rate, at any measured step, the start included.

    Args:
        runs: of one tier.
        point: of any rule; tells the questions of a step.
    """
    stock = _stock(runs, point)
    steps = sorted({step for found in runs.values() for step in found.steps})
    return _fronts(runs, [(each, step) for each in stock for step in steps])


def priced(runs: Runs, point: Point, fronts: Fronts) -> Priced:
    """Compare the runs of a point with a front.

    Args:
        runs: of one tier.
        point: of any seed.
        fronts: see `by_beta` and `by_all`.
    """
    by_seed, scores = {}, []
    for seed, record in seeds_of(runs, point).items():
        score = _score(record, None)
        if score is None:
            continue
        scores.append(score)
        paid = {name: _over(record, score, name, fronts[name]) for name in COSTS}
        known = {name: price for name, price in paid.items() if price is not None}
        if len(known) == len(COSTS):
            by_seed[seed] = known
    # Of every cost: the largest score costs what it costs, and beats all others.
    best = max((high for front in fronts.values() for high, _ in front[-1:]), default=None)
    beyond = 0 if best is None else sum(score > best for score in scores)
    return Priced(by_seed, len(scores), beyond)


@dataclass(frozen=True)
class Duel:
    """One rule's prices minus another's.

    Attributes:
        differences: per cost, with the test over seeds; `None` if no seed has any.
        seeds: that have any.
        compared: runs of the first rule that had a partner, both on the front.
        run: runs of the first rule.
    """

    differences: Mapping[str, Paired | None]
    seeds: int
    compared: int
    run: int


def duel(runs: Runs, points: Sequence[Point], rival: str) -> Duel:
    """Does a rule pay less than another one, for what either scores?

    The prices are those over `by_beta`. A seed counts once, with the mean over the points at which
    both have a price.

    Args:
        runs: of one tier.
        points: of the rule, of any seed.
        rival: the rule that it is compared with.
    """
    found: dict[int, list[Mapping[str, float]]] = {}
    run = 0
    for point in points:
        fronts = by_beta(runs, point)
        ours = priced(runs, point, fronts)
        theirs = priced(runs, replace(point, rule=rival), fronts).by_seed
        run += ours.run
        for seed in ours.by_seed.keys() & theirs.keys():
            less = {name: ours.by_seed[seed][name] - theirs[seed][name] for name in COSTS}
            found.setdefault(seed, []).append(less)
    differences = {
        name: tested(fmean(each[name] for each in found[seed]) for seed in sorted(found))
        for name in COSTS
    }
    return Duel(differences, len(found), sum(map(len, found.values())), run)


def _stock(runs: Runs, point: Point) -> list[Point]:
    """What stock was run with, at a point's number of questions; seeds aside."""
    found = (each for each in runs if each.rule == "stock" and each.prompts == point.prompts)
    return list(dict.fromkeys(replace(each, seed=0) for each in found))


def _fronts(runs: Runs, places: Iterable[tuple[Point, int | None]]) -> Fronts:
    places = list(places)
    found = {}
    for name, cost in COSTS.items():
        means = (_mean(runs, point, step, cost) for point, step in places)
        found[name] = front_of(each for each in means if each is not None)
    return found


def _mean(runs: Runs, point: Point, step: int | None, cost: Measure) -> tuple[float, float] | None:
    """Score and cost, over the seeds that have both."""
    pairs = [(_score(each, step), cost(each, step)) for each in seeds_of(runs, point).values()]
    known = [(score, paid) for score, paid in pairs if score is not None and paid is not None]
    if not known:
        return None
    return fmean(score for score, _ in known), fmean(paid for _, paid in known)


def _over(record: Record, score: float, name: str, front: Front) -> float | None:
    theirs, ours = on_front(score, front), COSTS[name](record, None)
    return None if theirs is None or ours is None else ours - theirs
