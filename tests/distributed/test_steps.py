"""Steps that are special: the first, a skipped one, one after a checkpoint, one that must stop."""

import math

import pytest
import torch

from tests.distributed.conftest import Runs
from tests.distributed.records import StepRecord


def _assert_equal_weights(first: StepRecord, second: StepRecord) -> None:
    for name, weight in first.weights.items():
        assert torch.equal(weight, second.weights[name]), name


@pytest.mark.parametrize("variant", ["paper", "robust"])
def test_first_on_policy_step_is_a_stock_step(variant: str, runs: Runs) -> None:
    """pi = pi_ref, so s = 0: no direction to project on."""
    ours, stock = (runs.of(f"on_policy-{v}")[0].steps[0] for v in (variant, "stock"))
    assert ours.metrics["pcr/norm_sta"] < 1e-6 * ours.metrics["pcr/norm_pla"]
    assert ours.metrics["pcr/conflict_rate"] == 0.0
    assert all(math.isfinite(value) for value in ours.metrics.values())
    for name, gradient in stock.gradient.items():
        difference = float((ours.gradient[name] - gradient).norm())
        assert difference <= 1e-6 * float(gradient.norm()), name


def test_first_on_policy_step_says_nothing_about_the_variance_of_s(runs: Runs) -> None:
    average = runs.of("on_policy-robust")[0].steps[0].average
    assert average is not None
    assert average["sums"] == {}


@pytest.mark.parametrize("variant", ["robust", "observe_sparse"])
def test_skipped_step_changes_nothing(variant: str, runs: Runs) -> None:
    """A NaN on the last rank: veRL skips the step, and the moving averages forget it."""
    for record in runs.of(f"poisoned-{variant}"):
        before, skipped, after = record.steps
        assert not math.isfinite(skipped.norm)
        assert math.isfinite(after.norm)
        assert skipped.digest == before.digest != after.digest
        assert before.average is not None and after.average is not None
        assert before.average["sums"]
        assert skipped.average == before.average
        assert after.average != before.average


def test_skipped_step_counts_its_blocks(runs: Runs) -> None:
    before, skipped, _ = runs.of("poisoned-robust")[0].steps
    assert before.metrics["pcr/degenerate_blocks"] == 0
    assert skipped.metrics["pcr/degenerate_blocks"] == 4


def test_step_skipped_for_another_parameter_is_forgotten(runs: Runs) -> None:
    """The blocks of that step were measured rightly, but no optimizer step came of it."""
    for record in runs.of("infinite_outside"):
        before, skipped, after = record.steps
        assert not math.isfinite(skipped.norm)
        assert math.isfinite(skipped.metrics["pcr/var_pla"])
        assert skipped.digest == before.digest != after.digest
        assert before.average is not None and before.average["sums"]
        assert skipped.average == before.average != after.average


def test_training_goes_on_after_a_skipped_step(runs: Runs) -> None:
    """The stock run skips the same step; `observe` stays on its track to the last bit."""
    observed, stock = runs.of("poisoned-observe_sparse")[0], runs.of("poisoned-stock")[0]
    for mine, theirs in zip(observed.steps, stock.steps, strict=True):
        _assert_equal_weights(theirs, mine)


def test_checkpoint_brings_the_moving_averages_back(runs: Runs) -> None:
    """The step after it is the same step, to the last bit: weights, alpha and averages."""
    for record in runs.of("resume"):
        first, second, resumed = record.steps
        assert first.average is not None and second.average is not None
        assert len(second.average["sums"]) == 4
        assert second.average != first.average
        assert resumed.average == second.average
        assert resumed.digest == second.digest
        for name, value in second.metrics.items():
            if name != "pcr/seconds":
                assert resumed.metrics[name] == value, name


def test_moving_average_matters(runs: Runs) -> None:
    """So that the test above compares something."""
    _, second, _ = runs.of("resume")[0].steps
    assert second.average is not None
    sums = second.average["sums"]["model.layers.0.mlp"]
    weights = second.average["weights"]["model.layers.0.mlp"]
    assert weights == pytest.approx([0.19, 0.19])  # two steps of 0.9: 0.1 + 0.09
    assert sums[0] / weights[0] != pytest.approx(second.metrics["pcr/var_pla"], rel=1e-3)


def test_the_first_rank_weighs_for_all(runs: Runs) -> None:
    """The others would have failed, and still make the same step."""
    for alone, together in zip(runs.of("first_weighs"), runs.of("plain-upgrad"), strict=True):
        assert alone.steps[0].metrics["pcr/conflict_rate"] > 0
        assert alone.steps[0].digest == together.steps[0].digest
        assert alone.steps[0].norm == together.steps[0].norm


def test_silent_hook_stops_the_run(runs: Runs) -> None:
    error = runs.of("skipped_layer", 1)[0].error
    assert error.startswith("RuntimeError")
    assert "'model.layers.1.mlp.up_proj.weight': 5" in error
    assert "in 6 micro-batches" in error
    assert "pcr.variance.estimator=split_half" in error


def test_split_half_needs_two_micro_batches(runs: Runs) -> None:
    for record in runs.of("undivided-paper_halves"):
        assert record.error.startswith("ValueError")
        assert "split_half" in record.error
        assert "6 sequences in micro-batches of 6" in record.error
        assert not record.steps
