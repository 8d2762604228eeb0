"""Steps that are special: the first, a skipped one, one after a checkpoint, one that must stop."""

import math

import pytest
import torch

from tests.distributed.cases import case
from tests.distributed.conftest import Runs
from tests.distributed.expected import Oracle, blocks_of
from tests.distributed.records import StepRecord
from tests.distributed.scenarios import MEMORY, MICRO_BATCHES, SKIPPED
from tests.oracle.variances import variance
from tests.support.tiny_model import MODELS

MEASURED = [
    pytest.param(name, ranks, id=name) for name, (_, needed) in MEMORY.items() for ranks in needed
]


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


def test_skipped_step_changes_nothing(runs: Runs) -> None:
    """A NaN on the last rank: veRL skips the step, and the moving averages forget it.

    Where the rule makes the update: `test_degenerate`.
    """
    for record in runs.of("poisoned-observe_sparse"):
        before, skipped, after = record.steps
        assert not math.isfinite(skipped.norm)
        assert math.isfinite(after.norm)
        assert skipped.digest == before.digest != after.digest
        assert before.average is not None and after.average is not None
        assert before.average["sums"]
        assert skipped.average == before.average
        assert after.average != before.average


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


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", ["skipped_layer", "skipped_layer_flat"])
def test_micro_batch_that_does_not_reach_a_layer_is_a_unit_of_zero(
    name: str, ranks: int, runs: Runs, oracle: Oracle
) -> None:
    """V of that layer's MLP, from the gradients of the other units and a zero."""
    records = runs.of(name, ranks)
    plain = case("plain-robust")
    units = oracle.units(plain, runs.of("plain-robust", ranks))
    assert len(units) == MICRO_BATCHES
    mass = sum(unit.size for unit in units)
    shares = [unit.size / mass for unit in units]
    members = blocks_of(MODELS["wide"], "mlp")["1.mlp"]
    average = records[0].steps[0].average
    assert average is not None
    *found, _ = average["sums"]["model.layers.1.mlp"]
    for objective, value in zip(("plasticity", "stability"), found, strict=True):
        flat = [torch.cat([getattr(u, objective)[n].flatten() for n in members]) for u in units]
        flat[SKIPPED] = torch.zeros_like(flat[SKIPPED])
        # The sum of a first step is a tenth of V.
        assert value == pytest.approx(0.1 * variance(flat, shares), rel=1e-5)


def test_overflow_of_the_loss_scale_is_forgotten(runs: Runs) -> None:
    """The skipped step leaves weights and averages alone; averages do not depend on the scale."""
    for record in runs.of("overflow"):
        skipped, first, second, first_alone, second_alone = record.steps
        assert not math.isfinite(skipped.norm)
        assert skipped.average is not None and skipped.average["sums"] == {}
        assert skipped.metrics["pcr/degenerate_blocks"] == 4
        assert math.isfinite(first.norm)
        for after, alone in ((first, first_alone), (second, second_alone)):
            assert after.digest == alone.digest != skipped.digest
            assert after.average == alone.average
            assert after.metrics["pcr/norm_pla"] == alone.metrics["pcr/norm_pla"]


@pytest.mark.parametrize(("name", "ranks"), MEASURED)
def test_second_gradient_costs_the_scope_s_share_of_one(name: str, ranks: int, runs: Runs) -> None:
    """And one share more for the first half of either objective."""
    steps = [record.steps[0].metrics for record in runs.of(name, ranks)]
    whole, scope = (sum(bytes_of[kind] for bytes_of in steps) for kind in ("whole", "scope"))
    assert whole > 1.05 * scope > 0  # so that one gradient more would be seen
    shares = 3 if "halves" in name else 1
    # FSDP2 aligns the parts of its buffer, and pads every shard to the size of the largest.
    allowed = 1.02 * max(bytes_of["whole"] + shares * bytes_of["scope"] for bytes_of in steps)
    assert all(bytes_of["held"] <= allowed for bytes_of in steps)


def test_gradient_that_no_hook_sees_stops_the_run(runs: Runs) -> None:
    error = runs.of("unseen_gradient", 1)[0].error
    assert error.startswith("RuntimeError")
    assert "no gradient of 'model.layers.1.mlp.down_proj.weight' in 6 micro-batches" in error
    assert "pcr.variance.estimator=split_half" in error


def test_weight_that_is_not_found_where_its_module_runs_stops_the_run(runs: Runs) -> None:
    """Its part of s would be missing, and its p would be p + beta s."""
    error = runs.of("unseen_leaf", 1)[0].error
    assert error.startswith("RuntimeError: pcr.combine_signals did not find 'model.layers.1.mlp.")
    assert "Set pcr.combine_signals=false" in error


def test_ranks_that_reach_different_parameters_stop_the_run(runs: Runs) -> None:
    """Of the same size: the reduction itself does not notice that it adds up different things."""
    for record in runs.of("different_parameters"):
        assert record.error.startswith("RuntimeError: pcr.passes=shared_forward")
        assert "Use pcr.passes=two_forward" in record.error


def test_the_first_rank_alone_weighs(runs: Runs) -> None:
    """The others take its weights; they cannot compute any in this case."""
    expected = runs.of("plain-upgrad", 2)[0].steps[0].digest
    assert [record.steps[0].digest for record in runs.of("first_weighs")] == [expected] * 2


def test_a_failure_of_the_first_rank_ends_all(runs: Runs) -> None:
    """Instead of leaving the others in a collective; the launch would not have ended."""
    first, second = (record.error for record in runs.of("first_fails"))
    assert first.startswith("AssertionError")
    assert second.startswith("RuntimeError: The first rank has failed")


@pytest.mark.parametrize(("variant", "same"), [("paper", "paper"), ("observe", "stock")])
def test_gradients_of_two_batches_are_not_added_up(variant: str, same: str, runs: Runs) -> None:
    record = runs.of(f"two_in_a_row-{variant}", 1)[0]
    assert record.error.startswith("RuntimeError: update_rule combines the gradients of one")
    alone = runs.of(f"plain-{same}", 1)[0].steps[0]
    assert record.steps[0].digest == alone.digest


def test_split_half_needs_two_micro_batches(runs: Runs) -> None:
    for record in runs.of("undivided-paper_halves"):
        assert record.error.startswith("ValueError")
        assert "split_half" in record.error
        assert "6 sequences in micro-batches of 6" in record.error
        assert not record.steps
