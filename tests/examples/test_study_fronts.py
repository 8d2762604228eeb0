"""Rules at equal score, between two betas of stock."""

from dataclasses import replace

import pytest
from scipy import stats

from examples.study import design
from examples.study.comparison import by_point
from examples.study.fronts import on_front, over_front
from examples.study.records import Record
from examples.study.tables import front_table

CENTRE = design.CENTRE
BETAS = (0.01, 0.1, 1.0)


def record(rule: str, beta: float, seed: int, solved: float, perplexity: float) -> Record:
    point = replace(CENTRE, rule=rule, beta=beta, seed=seed)
    measured = {
        "solved": [0.0, solved],
        "perplexity": [20.0, perplexity],
        "skill": [1.0, 0.5],
        "KL on answers": [0.0, 0.1],
    }
    return Record("engine", point, [0, 30], measured, {}, 60)


def stock(seed: int) -> list[Record]:
    """Twice the score costs four times as much."""
    return [
        record("stock", beta, seed, score, 20 + price + 0.1 * seed)
        for beta, score, price in zip(BETAS, (0.8, 0.4, 0.2), (16.0, 4.0, 1.0), strict=True)
    ]


def solved(found: Record) -> float | None:
    return found.at("solved")


def rise(found: Record) -> float | None:
    return found.rise("perplexity")


def test_a_price_between_two_points() -> None:
    front = [(0.2, 1.0), (0.4, 4.0), (0.8, 16.0)]
    assert on_front(0.2, front) == 1.0
    assert on_front(0.3, front) == pytest.approx(2.5)
    assert on_front(0.8, front) == 16.0
    assert on_front(0.1, front) is None
    assert on_front(0.9, front) is None
    assert on_front(0.3, []) is None


def test_where_a_score_is_there_twice_the_larger_beta_counts() -> None:
    assert on_front(0.3, [(0.2, 1.0), (0.4, 4.0), (0.25, 9.0), (0.5, 12.0)]) == pytest.approx(2.5)


def test_a_rule_on_the_front_pays_nothing_more_and_one_off_it_what_it_is_off() -> None:
    off = [0.5, -0.2, 0.9]
    records = [each for seed in range(3) for each in stock(seed)]
    records += [record("soft0.5", 0.1, seed, 0.3, 22.5 + 0.1 * seed) for seed in range(3)]
    records += [
        record("robust", 0.1, seed, 0.6, 30.0 + 0.1 * seed + off[seed]) for seed in range(3)
    ]
    runs = by_point(records)
    on, over = (
        over_front(runs, [replace(CENTRE, rule=rule)], BETAS, solved, rise)
        for rule in ("soft0.5", "robust")
    )
    assert on is not None and over is not None
    assert on.difference.mean == pytest.approx(0.0)
    assert over.difference.mean == pytest.approx(sum(off) / 3)
    assert over.p_value == pytest.approx(stats.ttest_1samp(off, 0).pvalue)
    table = front_table(runs, ["soft0.5", "robust", "paper"], [CENTRE], BETAS).splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| soft0.5", "| robust"]
    assert table[3].startswith("| robust | +0.40 (p ")


def test_a_score_that_stock_never_has_counts_nowhere() -> None:
    records = [*stock(0), record("robust", 0.1, 0, 0.9, 30.0), record("robust", 1.0, 0, 0.2, 21.5)]
    points = [replace(CENTRE, rule="robust", beta=beta) for beta in (0.1, 1.0)]
    found = over_front(by_point(records), points, BETAS, solved, rise)
    assert found is not None and found.difference.mean == pytest.approx(0.5)
    assert over_front(by_point(records), points[:1], BETAS, solved, rise) is None
    assert over_front({}, points, BETAS, solved, rise) is None
