"""Ratios of times that were taken beside each other."""

import pytest

from benchmarks.measuring import summary, turned
from benchmarks.ratios import quartiles, ratio, shown


def test_ratios_are_of_one_repeat() -> None:
    slow, stock = summary([(3.0, 0.0), (30.0, 0.0), (3.6, 0.0)]), summary([(2.0, 0.0)] * 3)
    assert ratio(slow, stock) == pytest.approx(1.8)
    assert quartiles(slow, stock) == pytest.approx((1.5, 15.0))
    assert shown(slow, stock) == "1.80 (1.50-15.00)"
    assert shown(stock, stock) == "1.00"


@pytest.mark.parametrize("repeats", [1, 2])
def test_of_few_repeats_no_quartiles_are_told(repeats: int) -> None:
    row, stock = summary([(3.0, 0.0)] * repeats), summary([(2.0, 0.0)] * repeats)
    assert quartiles(row, stock) is None
    assert shown(row, stock) == "1.50"


def test_files_of_before_have_medians_alone() -> None:
    stock = summary([(2.0, 0.0), (4.0, 0.0)])
    assert ratio({"median": 6.0}, stock) == 2.0
    assert quartiles({"median": 6.0}, stock) is None


def test_every_update_begins_a_repeat() -> None:
    names = ["stock", "two_forward", "shared_forward"]
    orders = [turned(names, repeat) for repeat in range(4)]
    assert [order[0] for order in orders] == [*names, "stock"]
    assert all(sorted(order) == sorted(names) for order in orders)
