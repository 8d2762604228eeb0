"""Means, intervals and fronts against numbers computed in another way."""

import itertools
import random
from math import nan, sqrt

import numpy
import pytest

from pcr_plugin.plots.logs.log import Log
from pcr_plugin.plots.tables.blocks import block_curves, kind_of, values_by_kind
from pcr_plugin.plots.tables.curves import change, curve, final, over_seeds, typical
from pcr_plugin.plots.tables.statistics import estimate, pareto_front, t_probability, t_quantile

# From a printed table: degrees of freedom to the two-sided 95 % point.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 30: 2.042, 120: 1.980}


def log_of(metric: str, values: dict[int, float]) -> Log:
    log = Log()
    for step, value in values.items():
        log.add(step, {metric: value})
    return log


@pytest.mark.parametrize(("degrees", "expected"), TABLE.items())
def test_quantile_of_student_s_t(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 8])
def test_probability_is_the_integral_of_the_density(degrees: int) -> None:
    t = numpy.linspace(0, 2.5, 20001)
    density = (1 + t**2 / degrees) ** (-(degrees + 1) / 2)
    # The normalisation, from the integral over the line in the variable t = tan(u).
    u = numpy.linspace(-numpy.pi / 2, numpy.pi / 2, 200001)[1:-1]
    whole = (1 + numpy.tan(u) ** 2 / degrees) ** (-(degrees + 1) / 2) / numpy.cos(u) ** 2
    expected = 2 * numpy.trapezoid(density, t) / numpy.trapezoid(whole, u)
    assert t_probability(2.5, degrees) == pytest.approx(expected, abs=1e-4)


def test_interval_of_three_seeds() -> None:
    found = estimate([1.0, 2.0, 6.0])
    assert found is not None
    assert found.mean == pytest.approx(3.0)
    assert found.error == pytest.approx(sqrt(7.0) / sqrt(3.0))  # variance (4 + 1 + 9) / 2
    assert found.half_width == pytest.approx(4.302653 * sqrt(7 / 3), rel=1e-6)


def test_one_seed_has_no_interval_and_none_no_estimate() -> None:
    one = estimate([2.0])
    assert one is not None
    assert (one.mean, one.error, one.half_width, one.count) == (2.0, None, None, 1)
    assert estimate([]) is None
    assert over_seeds([None, None]) is None


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    draw = random.Random(0)
    hits = 0
    for _ in range(4000):
        found = estimate([draw.gauss(0, 1) for _ in range(4)])
        assert found is not None
        assert found.half_width is not None
        hits += abs(found.mean) < found.half_width
    assert hits / 4000 == pytest.approx(0.95, abs=0.0138)  # four standard errors


def test_curve_is_the_mean_over_the_seeds_that_have_the_step() -> None:
    logs = [
        log_of("x", {1: 1.0, 2: 4.0, 3: nan}),
        log_of("x", {1: 3.0, 2: nan, 3: nan}),
        log_of("x", {1: 5.0}),
    ]
    found = curve(logs, "x")
    assert found is not None
    assert found.steps == [1, 2]
    assert found.means == [3.0, 4.0]
    assert [point.count for point in found.points] == [3, 1]
    width = 4.302653 * 2 / sqrt(3)
    assert found.edge(1) == pytest.approx([3 + width, 4.0], rel=1e-6)
    assert found.edge(-1) == pytest.approx([3 - width, 4.0], rel=1e-6)
    assert curve(logs, "y") is None
    assert curve([log_of("x", {1: nan})], "x") is None


def test_final_value_change_and_typical_value() -> None:
    log = log_of("x", {step: float(step) for step in range(30)} | {30: nan})
    assert final(log, "x") == 28.0  # 27, 28, 29
    assert change(log, "x") == 28.0
    assert typical(log, "x") == 14.5
    short = log_of("x", {0: 3.0, 5: 4.0})
    assert final(short, "x") == 4.0
    assert final(log, "y") is None
    assert change(log_of("x", {3: 1.0}), "x") is None


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


@pytest.mark.parametrize("seed", range(40))
def test_front_has_just_the_points_that_none_beats(seed: int) -> None:
    draw = random.Random(seed)
    # Few different values, so that there are ties and equal points.
    points = [(float(draw.randint(0, 6)), float(draw.randint(0, 6))) for _ in range(seed)]
    expected = {
        index
        for index, point in enumerate(points)
        if not any(beats(other, point) for other in points)
    }
    front = pareto_front(points)
    assert set(front) == expected
    assert len(front) == len(expected)
    for left, right in itertools.pairwise(front):
        assert points[left][1] <= points[right][1]
        assert points[left][0] <= points[right][0]


def test_blocks_are_sorted_by_kind_and_layer() -> None:
    log = Log()
    for block in ("10.mlp", "2.mlp", "2.self_attn", "lm_head"):
        log.add(1, {f"actor/pcr/block/{block}/cos": 0.5, f"actor/pcr/block/{block}/alpha": nan})
    log.add(2, {"actor/pcr/block/2.mlp/alpha": 0.25, "actor/pcr/block/2.self_attn/alpha": 1.0})
    assert list(block_curves([log], "cos")) == ["2.mlp", "10.mlp", "2.self_attn", "lm_head"]
    assert values_by_kind([log], "alpha") == {"MLP": [0.25], "attention": [1.0]}


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ("3.mlp", "MLP"),
        ("3.mlp.gate_proj.weight", "MLP"),
        ("0.block_sparse_moe", "MLP"),
        ("1.self_attention", "attention"),
        ("7.attn", "attention"),
        ("all", "other"),
        ("model.norm.weight", "other"),
    ],
)
def test_kinds_of_blocks(block: str, kind: str) -> None:
    assert kind_of(block) == kind
