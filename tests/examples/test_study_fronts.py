"""Rules at equal score: prices over the fronts of stock, all of them worked out by hand."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from scipy import stats

from examples.study import design
from examples.study.comparison import Runs, by_point
from examples.study.fronts import COSTS, by_all, by_beta, duel, front_of, on_front, priced
from examples.study.price_tables import duel_table, price_table
from examples.study.recipe import Point
from examples.study.records import Record

CENTRE = design.CENTRE
RULE, RIVAL = "pcr_relative_floor_ema", "pcgrad_floor"
AT_START = 0.125  # score
SEEDS = range(3)
# Beta, score, and what it costs in perplexity: twice the score costs four times as much.
STOCK = ((1.0, 0.2, 1.0), (0.1, 0.4, 4.0), (0.01, 0.8, 16.0))


def record(
    point: Point, score: float, cost: float, early: tuple[float, float] = (AT_START, 0.0)
) -> Record:
    """Measured at the start, early and at the end; all costs are shares of the first."""
    costs = [0.0, early[1], cost]
    measured = {
        "solved": [AT_START, early[0], score],
        "perplexity": [20.0 + each for each in costs],
        "skill loss": [each / 100 for each in costs],
        "KL on answers": [each / 10 for each in costs],
    }
    return Record("engine", point, [0, 8, 24], measured, {}, 60)


def of_rule(rule: str, beta: float, outcomes: Iterable[tuple[float, float]]) -> list[Record]:
    return [
        record(replace(CENTRE, rule=rule, beta=beta, seed=seed), score, cost)
        for seed, (score, cost) in enumerate(outcomes)
    ]


def stock(*more: Record) -> Runs:
    """Seeds whose score and cost are about the means above, in opposite directions."""
    found = list(more)
    for beta, score, cost in STOCK:
        moved = [(score + away, cost - 10 * away) for away in (-0.05, 0.0, 0.05)]
        found += of_rule("stock", beta, moved)
    return by_point(found)


def test_a_cost_between_two_points() -> None:
    front = [(0.2, 1.0), (0.4, 4.0), (0.8, 16.0)]
    assert on_front(0.2, front) == 1.0
    assert on_front(0.3, front) == pytest.approx(2.5)
    assert on_front(0.5, front) == pytest.approx(7.0)
    assert on_front(0.8, front) == 16.0
    assert on_front(0.19, front) is None
    assert on_front(0.81, front) is None
    assert on_front(0.3, []) is None
    assert on_front(0.2, [(0.2, 1.0)]) is None


def test_a_front_is_what_no_other_point_beats() -> None:
    points = [(0.8, 16.0), (0.2, 1.0), (0.4, 4.0)]
    front = [(0.2, 1.0), (0.4, 4.0), (0.8, 16.0)]
    assert front_of(points) == front
    assert front_of([*points, (0.4, 4.0)]) == front
    # It costs more and has less than another; it has the same and costs more.
    assert front_of([*points, (0.7, 17.0), (0.4, 5.0)]) == front
    # More for the same price: what is below it is to be had for that.
    assert front_of([(0.1, 0.0), (0.3, 0.0), (0.5, 2.0)]) == [(0.1, 0.0), (0.3, 0.0), (0.5, 2.0)]
    assert on_front(0.2, front_of([(0.1, 0.5), (0.3, 0.0), (0.5, 2.0)])) == 0.0
    assert front_of([]) == []


def test_the_front_of_beta_goes_through_means_over_seeds() -> None:
    runs = stock()
    fronts = by_beta(runs, replace(CENTRE, rule=RULE, beta=0.1))
    means = sorted((score, cost) for _, score, cost in STOCK)
    for name, share in (("perplexity", 1.0), ("KL", 0.1), ("skill", 0.01)):
        found = [each for point in fronts[name] for each in point]
        assert found == pytest.approx([v for s, c in means for v in (s, c * share)]), name


def test_the_front_of_beta_is_of_the_same_rate_and_questions() -> None:
    other_rate = replace(CENTRE, rate=design.FAST)
    others = [
        record(replace(point, beta=beta), 0.9, cost)
        for point, cost in ((other_rate, 0.5), (design.NOISY, 0.25))
        for beta in (0.1, 0.01)
    ]
    runs = stock(*others)
    assert by_beta(runs, CENTRE) == by_beta(stock(), CENTRE)
    assert by_beta(runs, replace(other_rate, rule=RULE))["perplexity"] == [(0.9, 0.5)]
    assert by_beta(runs, replace(design.NOISY, rule=RULE))["perplexity"] == [(0.9, 0.25)]
    for point, cost in ((CENTRE, 0.5), (design.NOISY, 0.25)):
        assert by_all(runs, point)["perplexity"] == [(AT_START, 0.0), (0.9, cost)]


def test_the_front_of_all_has_other_rates_and_earlier_steps() -> None:
    fast = record(replace(CENTRE, rate=design.FAST), 0.6, 5.0, early=(0.5, 4.5))
    front = by_all(stock(fast), CENTRE)["perplexity"]
    # The start is on it, free of cost. At 0.4 stock pays 4 with beta alone; early or late with the
    # other rate it has 0.5 and 0.6 for less than the 7 and 10 that beta alone asks for.
    expected = [(AT_START, 0.0), (0.2, 1.0), (0.4, 4.0), (0.5, 4.5), (0.6, 5.0), (0.8, 16.0)]
    assert [v for point in front for v in point] == pytest.approx([v for p in expected for v in p])


def test_a_rule_on_the_front_pays_nothing_and_one_off_it_what_it_is_off() -> None:
    off = (0.5, -0.2, 0.9)
    on = [(0.3, 2.5), (0.5, 7.0), (0.4, 4.0)]
    runs = stock(
        *of_rule("soft0.5_floor", 0.1, on),
        *of_rule(RULE, 0.1, [(on[seed][0], on[seed][1] + off[seed]) for seed in SEEDS]),
    )
    point = replace(CENTRE, rule=RULE, beta=0.1)
    fronts = by_beta(runs, point)
    nothing = priced(runs, replace(point, rule="soft0.5_floor"), fronts).of("perplexity")
    assert nothing is not None
    assert nothing.difference.mean == pytest.approx(0.0)
    assert nothing.difference.error == pytest.approx(0.0)
    for name, share in (("perplexity", 1.0), ("KL", 0.1), ("skill", 0.01)):
        found = priced(runs, point, fronts).of(name)
        assert found is not None
        assert found.difference.mean == pytest.approx(0.4 * share), name
        assert found.difference.error == pytest.approx(stats.sem(off) * share), name
        assert found.p_value == pytest.approx(stats.ttest_1samp(off, 0).pvalue), name


def test_scores_that_stock_has_not_are_counted_and_not_priced() -> None:
    runs = stock(*of_rule(RULE, 0.1, [(0.9, 1.0), (0.1625, 1.0), (0.6, 11.0)]))
    point = replace(CENTRE, rule=RULE, beta=0.1)
    found = priced(runs, point, by_beta(runs, point))
    assert list(found.by_seed) == [2]
    assert found.by_seed[2]["perplexity"] == pytest.approx(1.0)
    assert (found.run, found.beyond) == (3, 1)
    # The second is half way between the start, which is on this one, and the largest beta.
    found = priced(runs, point, by_all(runs, point))
    assert list(found.by_seed) == [1, 2]
    assert found.by_seed[1]["perplexity"] == pytest.approx(0.5)
    assert found.beyond == 1


def test_stock_is_priced_without_itself() -> None:
    point = replace(CENTRE, beta=0.1)
    found = priced(stock(), point, by_beta(stock(), point))
    # The line from 0.2 to 0.8: 6 at 0.4, and 25 for a whole.
    expected = {0: 4.5 - 4.75, 1: 4.0 - 6.0, 2: 3.5 - 7.25}
    assert {seed: each["perplexity"] for seed, each in found.by_seed.items()} == pytest.approx(
        expected
    )


def test_a_duel_is_decided_by_prices_and_not_by_costs() -> None:
    """The rule costs more and scores more; for what it scores it pays less."""
    ours, theirs = [-1.0, -0.5, -0.7], [0.2, 0.0, 0.3]
    runs = stock(
        *of_rule(RULE, 0.1, [(0.6, 10.0 + each) for each in ours]),
        *of_rule(RIVAL, 0.1, [(0.3, 2.5 + each) for each in theirs]),
    )
    found = duel(runs, [replace(CENTRE, rule=RULE, beta=0.1)], RIVAL)
    paid = found.differences["perplexity"]
    assert paid is not None
    assert paid.difference.mean == pytest.approx(sum(ours) / 3 - sum(theirs) / 3)
    assert paid.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert (found.compared, found.run) == (3, 3)


def test_betas_of_a_seed_are_one_value_of_a_duel() -> None:
    low = [(-1.0, 0.2), (-0.5, 0.0), (-0.7, 0.3)]
    high = [(0.4, 0.1), (0.8, 0.1), (0.1, 0.6)]
    records = [
        each
        for beta, prices in ((0.1, low), (0.01, high))
        for rule, index, score, cost in ((RULE, 0, 0.6, 10.0), (RIVAL, 1, 0.3, 2.5))
        for each in of_rule(rule, beta, [(score, cost + pair[index]) for pair in prices])
    ]
    points = [replace(CENTRE, rule=RULE, beta=beta) for beta in (0.1, 0.01)]
    found = duel(stock(*records), points, RIVAL)
    means = [
        sum(mine - other for mine, other in pairs) / 2 for pairs in zip(low, high, strict=True)
    ]
    paid = found.differences["perplexity"]
    assert paid is not None
    assert paid.difference.mean == pytest.approx(sum(means) / 3)
    assert paid.difference.count == 3
    assert paid.p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue)


def test_a_duel_leaves_out_what_has_no_price() -> None:
    runs = stock(
        *of_rule(RULE, 0.1, [(0.6, 10.0), (0.9, 1.0), (0.6, 11.0)]),
        *of_rule(RIVAL, 0.1, [(0.3, 3.0), (0.3, 2.5)]),
    )
    found = duel(runs, [replace(CENTRE, rule=RULE, beta=0.1)], RIVAL)
    assert (found.compared, found.run) == (1, 3)
    paid = found.differences["perplexity"]
    assert paid is not None
    assert paid.difference.mean == pytest.approx(-0.5)
    assert paid.p_value is None
    nothing = duel(stock(), [replace(CENTRE, rule=RULE)], RIVAL)
    assert nothing.differences == dict.fromkeys(COSTS)


def test_rows_of_the_tables() -> None:
    runs = stock(
        *of_rule(RULE, 0.1, [(0.9, 1.0), (0.6, 10.5), (0.6, 11.5)]),
        *of_rule(RIVAL, 0.1, [(0.3, 3.0), (0.3, 2.5), (0.3, 2.5)]),
    )
    points = [replace(CENTRE, rule=rule, beta=0.1) for rule in (RULE, "stock", "paper")]
    lines = price_table(runs, points).splitlines()
    assert lines[0].count("|") == lines[2].count("|") == lines[3].count("|")
    rule, control = (line.strip("| ").split(" | ") for line in lines[2:])
    assert rule[:5] == [RULE, "0.1", "0.0002", "mlp", "0.700 ± 0.100"]
    assert rule[5:7] == ["+1.00 ± 0.50", "+1.00 ± 0.50"]
    assert rule[7] == "+0.010 ± 0.005"
    assert rule[9] == "+0.100 ± 0.050"
    assert rule[-2:] == ["2 of 3, 1 beyond", "2 of 3, 1 beyond"]
    assert control[0] == "stock"
    assert lines[3].split(" | ")[5:7] == ["-2.00 ± 1.01", ""]
    assert lines[3].endswith(" | 3 of 3 |  |")
    [line] = duel_table(runs, [(RULE, RIVAL), ("paper", RIVAL)], points[:1]).splitlines()[2:]
    p = stats.ttest_1samp([0.5, 1.5], 0).pvalue
    assert line.startswith(f"| {RULE} | {RIVAL} | +1.00 (p {p:.3f}) | +0.010 (p {p:.3f}) |")
    assert line.endswith("| 2 | 2 of 3 |")
