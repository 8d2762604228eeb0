"""Every policy loss of veRL in the engine: p and s are the gradients of its two parts."""

import math

import pytest

from tests.distributed.conftest import Runs
from tests.distributed.loss_combinations import KL_TYPES, ROUNDS, Combination, combinations
from tests.distributed.loss_scenario import BETA, LossRecord
from tests.support.policy_losses import AGGREGATIONS, loss_modes

# Float32: two gradients that are rounded and added, against one that is rounded.
ROUNDING = 1e-6
COMBINATIONS = [
    pytest.param(strategy, found, id=f"{strategy}-{found.name}")
    for strategy in ROUNDS
    for found in combinations(strategy)
]
every_combination = pytest.mark.parametrize(("strategy", "combination"), COMBINATIONS)


def numbers_of(strategy: str, combination: Combination, runs: Runs) -> dict[str, float]:
    record = runs.of(f"losses_{strategy}")[0]
    assert isinstance(record, LossRecord)
    return record.numbers[combination.name]


def test_everything_has_its_turn() -> None:
    found = [combination for strategy in ROUNDS for combination in combinations(strategy)]
    assert len({combination.name for combination in found}) == len(found)
    for strategy in ROUNDS:
        assert {c.loss_mode for c in combinations(strategy)} == set(loss_modes())
    for kind in KL_TYPES:
        assert sum(combination.kl == kind for combination in found) >= 3
    for way in AGGREGATIONS:
        assert sum((c.aggregation, c.horizon) == way for c in found) >= 3
    for mode in loss_modes():
        mine = [combination for combination in found if combination.loss_mode == mode]
        assert len({combination.kl for combination in mine}) == len(mine)
        assert {combination.entropy > 0 for combination in mine} == {False, True}


@every_combination
def test_sum_is_the_stock_gradient(strategy: str, combination: Combination, runs: Runs) -> None:
    numbers = numbers_of(strategy, combination, runs)
    assert 0 < numbers["stock"] < math.inf
    assert numbers["sum_error"] < ROUNDING * numbers["stock"]


@every_combination
def test_each_part_is_the_gradient_of_its_term_alone(
    strategy: str, combination: Combination, runs: Runs
) -> None:
    """P is the stock gradient with a coefficient of 0, s that of a loss of nothing but the KL."""
    numbers = numbers_of(strategy, combination, runs)
    assert min(numbers["p"], numbers["s"]) > 1e-3 * max(numbers["kl"], numbers["without_kl"])
    assert numbers["p_error"] <= ROUNDING * numbers["without_kl"]
    assert numbers["s_error"] <= ROUNDING * numbers["kl"]


@every_combination
def test_metrics_are_of_these_gradients(
    strategy: str, combination: Combination, runs: Runs
) -> None:
    numbers = numbers_of(strategy, combination, runs)
    assert numbers["pcr/norm_pla"] == pytest.approx(numbers["mlp_p"], rel=1e-5)
    assert numbers["pcr/norm_sta"] == pytest.approx(numbers["mlp_s"], rel=1e-5)
    assert numbers["pcr/beta_eff"] == BETA
    assert numbers["pcr/degenerate_blocks"] == 0
    stock = {name: value for name, value in numbers.items() if name.startswith("stock/")}
    assert "stock/kl_loss" in stock
    for name, value in stock.items():
        mine = numbers[name.removeprefix("stock/")]
        assert mine == pytest.approx(value, rel=1e-5, abs=1e-6), name
