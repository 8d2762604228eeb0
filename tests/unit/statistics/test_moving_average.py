"""The debiased average of V, which steps it takes in, and its way through a checkpoint."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pcr_plugin.statistics import VarianceAverage
from tests.unit.explicit_vectors import SEEDS, normal

NAMES = ["0.mlp", "1.mlp"]
GOOD = torch.tensor([True, True])
NEITHER = torch.tensor([False, False])


def values(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("decay", [0.1, 0.9, 0.999])
def test_a_constant_is_its_own_average_from_the_first_step(decay: float) -> None:
    average = VarianceAverage(decay)
    constant = values([3.0, 1e-9], [0.0, 2e7])
    for _ in range(5):
        torch.testing.assert_close(average.update(NAMES, constant, GOOD), constant)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_weights_fall_geometrically_with_age(seed: int, decay: float) -> None:
    steps = normal(seed, 6, 2, 2).abs()
    average = VarianceAverage(decay)
    for last in range(len(steps)):
        result = average.update(NAMES, steps[last], GOOD)
        weights = torch.tensor([decay ** (last - i) for i in range(last + 1)], dtype=torch.float64)
        expected = (weights[:, None, None] * steps[: last + 1]).sum(dim=0) / weights.sum()
        torch.testing.assert_close(result, expected)


def test_no_decay_passes_every_value_through() -> None:
    average = VarianceAverage(0.0)
    average.update(NAMES, values([1.0, 2.0], [3.0, 4.0]), GOOD)
    odd = values([torch.nan, -1.0], [torch.inf, 5.0])
    torch.testing.assert_close(average.update(NAMES, odd, GOOD), odd, equal_nan=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 1])
def test_a_value_that_is_not_finite_is_not_taken_in(bad: float, column: int) -> None:
    average = VarianceAverage(0.9)
    average.update(NAMES, values([1.0, 2.0], [3.0, 4.0]), GOOD)
    step = values([7.0, 7.0], [7.0, 7.0])
    step[0, column] = bad
    result = average.update(NAMES, step, GOOD)
    assert result[0].tolist() == pytest.approx([1.0, 2.0])  # the average stands in
    assert result[1].tolist() != pytest.approx([3.0, 4.0])
    after = average.update(NAMES, values([1.0, 2.0], [3.0, 4.0]), GOOD)
    assert after[0].tolist() == pytest.approx([1.0, 2.0])  # and is not spoilt


def test_without_any_history_the_step_itself_is_returned() -> None:
    average = VarianceAverage(0.9)
    step = values([torch.nan, torch.nan], [5.0, 6.0])
    result = average.update(NAMES, step, torch.tensor([True, False]))
    torch.testing.assert_close(result, step, equal_nan=True)
    assert average.state_dict()["sums"] == {}


def test_a_step_that_says_nothing_leaves_the_average() -> None:
    average = VarianceAverage(0.9)
    average.update(NAMES, values([1.0, 2.0], [3.0, 4.0]), GOOD)
    result = average.update(NAMES, values([9.0, 9.0], [9.0, 9.0]), NEITHER)
    torch.testing.assert_close(result, values([1.0, 2.0], [3.0, 4.0]))


def test_negative_estimates_are_averaged_as_they_are() -> None:
    """V is unbiased only with its negative values; clamping comes after the average."""
    average = VarianceAverage(0.5)
    average.update(NAMES, values([-1.0, -1.0], [-1.0, -1.0]), GOOD)
    result = average.update(NAMES, values([2.0, 2.0], [2.0, 2.0]), GOOD)
    torch.testing.assert_close(result, torch.ones(2, 2, dtype=torch.float64))


def test_blocks_are_known_by_name_and_not_by_place() -> None:
    average = VarianceAverage(0.9)
    first, second = values([1.0, 2.0], [3.0, 4.0])
    average.update(NAMES, torch.stack([first, second]), GOOD)
    swapped = average.update(NAMES[::-1], values([0.0, 0.0], [0.0, 0.0]), NEITHER)
    torch.testing.assert_close(swapped, torch.stack([second, first]))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_resumed_run_goes_on_bit_by_bit(seed: int) -> None:
    steps = normal(seed, 8, 2, 2).abs()
    whole, before = VarianceAverage(0.9), VarianceAverage(0.9)
    for step in steps[:4]:
        whole.update(NAMES, step, GOOD)
        before.update(NAMES, step, GOOD)
    resumed = VarianceAverage(0.9)
    resumed.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for step in steps[4:]:
        expected = whole.update(NAMES, step, GOOD)
        torch.testing.assert_close(resumed.update(NAMES, step, GOOD), expected, rtol=0, atol=0)


def test_a_saved_state_is_not_changed_by_later_steps() -> None:
    """A skipped optimizer step takes its variances back out with such a state."""
    average = VarianceAverage(0.9)
    average.update(NAMES, values([1.0, 2.0], [3.0, 4.0]), GOOD)
    saved = average.state_dict()
    copy = json.loads(json.dumps(saved))
    average.update(NAMES, values([5.0, 5.0], [5.0, 5.0]), GOOD)
    assert json.loads(json.dumps(saved)) == copy
    average.load_state_dict(saved)
    result = average.update(NAMES, values([0.0, 0.0], [0.0, 0.0]), NEITHER)
    torch.testing.assert_close(result, values([1.0, 2.0], [3.0, 4.0]))


WHOLE: dict[str, Any] = {"version": 1, "members": {}, "sums": {"0.mlp": [1.0, 2.0, 0.1]}}
BROKEN: dict[str, dict[str, Any]] = {
    "empty": {},
    "no sums": {"version": 1, "members": {}},
    "no members": {"version": 1, "sums": {}},
    "members that are no mapping": {**WHOLE, "members": ["0.mlp"]},
    "no version": {"members": {}, "sums": {}},
    "a later format": {**WHOLE, "version": 2},
    "a format by name": {**WHOLE, "version": "1"},
    "two numbers": {**WHOLE, "sums": {"0.mlp": [1.0, 2.0]}},
    "four numbers": {**WHOLE, "sums": {"0.mlp": [1.0, 2.0, 0.1, 0.1]}},
    "letters": {**WHOLE, "sums": {"0.mlp": "abc"}},
    "text": {**WHOLE, "sums": {"0.mlp": ["1.0", 2.0, 0.1]}},
    "a flag": {**WHOLE, "sums": {"0.mlp": [True, 2.0, 0.1]}},
    "no number": {**WHOLE, "sums": {"0.mlp": [math.nan, 2.0, 0.1]}},
    "infinity": {**WHOLE, "sums": {"0.mlp": [math.inf, 2.0, 0.1]}},
    "more than a float holds": {**WHOLE, "sums": {"0.mlp": [10**400, 2.0, 0.1]}},
    "no weight": {**WHOLE, "sums": {"0.mlp": [1.0, 2.0, 0.0]}},
    "a mapping of numbers": {**WHOLE, "sums": {"0.mlp": {"p": 1.0, "s": 2.0, "weight": 0.1}}},
    "nothing": {**WHOLE, "sums": None},
}


def test_a_whole_state_is_taken() -> None:
    average = VarianceAverage(0.9)
    average.load_state_dict(WHOLE)
    assert average.update(["0.mlp"], values([0.0, 0.0]), NEITHER[:1]).tolist()[0] == [10.0, 20.0]


@pytest.mark.parametrize("name", BROKEN)
def test_a_state_that_is_not_whole_is_refused_and_changes_nothing(name: str) -> None:
    average = VarianceAverage(0.9)
    average.update(NAMES, values([1.0, 2.0], [3.0, 4.0]), GOOD)
    before = average.state_dict()
    with pytest.raises(ValueError, match="saved"):
        average.load_state_dict(BROKEN[name])
    assert average.state_dict() == before


def test_the_configured_decay_wins_over_the_saved_one() -> None:
    saved = VarianceAverage(0.5).state_dict()
    average = VarianceAverage(0.9)
    average.load_state_dict(saved)
    assert average.decay == 0.9


def test_an_average_of_other_parameters_is_not_taken_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A block's name stays the same where the scope has become another."""
    before = VarianceAverage(0.9, {"0.mlp": "up, down", "1.mlp": "up, down"})
    before.update(NAMES, values([1.0, 2.0], [3.0, 4.0]), GOOD)
    resumed = VarianceAverage(0.9, {"0.mlp": "up, down", "1.mlp": "down"})
    resumed.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert "1.mlp" in caplog.text and "0.mlp" not in caplog.text
    step = values([7.0, 7.0], [7.0, 7.0])
    kept, anew = resumed.update(NAMES, step, GOOD).tolist()
    assert kept == before.update(NAMES, step, GOOD).tolist()[0]
    assert anew == pytest.approx([7.0, 7.0])
