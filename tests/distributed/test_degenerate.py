"""A step without one of the gradients, and one in which a gradient is not finite."""

import math

import pytest

from tests.distributed.conftest import Runs
from tests.distributed.degenerate_cases import (
    BROKEN,
    BROKEN_VARIANTS,
    STRATEGIES,
    ZEROS,
    broken,
    no_gradient,
    no_plasticity,
    sound,
)
from tests.distributed.records import StepRecord
from tests.distributed.variants import STOCK
from tests.support.distances import difference, norm
from tests.support.tiny_model import WIDE

# Float32, as in `test_stock_updates`.
ROUNDING = 1e-6
every_layout = pytest.mark.parametrize("strategy", STRATEGIES)
every_zero = pytest.mark.parametrize(("strategy", "variant"), ZEROS)
every_break = pytest.mark.parametrize("variant", BROKEN_VARIANTS)
every_batch = pytest.mark.parametrize("batch", BROKEN)


def assert_harmless(step: StepRecord) -> None:
    """Finite numbers, and no conflict where there is no direction."""
    assert all(math.isfinite(value) for value in step.metrics.values())
    assert step.metrics["pcr/conflict_rate"] == 0
    assert step.metrics["pcr/degenerate_blocks"] == 0
    assert step.metrics["pcr/norm_pla"] == 0
    assert step.metrics["pcr/var_pla"] == 0
    assert "pcr/alpha" not in step.metrics


@every_zero
def test_without_plasticity_the_update_is_beta_s(strategy: str, variant: str, runs: Runs) -> None:
    recipe = no_plasticity(strategy).name
    ours, stock = runs.of(f"{recipe}-{variant}"), runs.of(f"{recipe}-{STOCK}")
    for record in ours:
        assert_harmless(record.steps[0])
        assert record.steps[0].metrics["pcr/norm_sta"] > 0
    mine, theirs = ours[0].steps[0].gradient, stock[0].steps[0].gradient
    assert norm(theirs) > 0
    assert norm(difference(mine, theirs)) < ROUNDING * norm(theirs)


@every_zero
def test_the_step_after_it_has_both(strategy: str, variant: str, runs: Runs) -> None:
    for record in runs.of(f"{no_plasticity(strategy).name}-{variant}"):
        empty, common = record.steps
        assert all(math.isfinite(value) for value in common.metrics.values())
        assert common.metrics["pcr/norm_pla"] > 0
        assert common.metrics["pcr/degenerate_blocks"] == 0
        assert math.isfinite(common.norm)
        assert common.digest != empty.digest


@every_zero
def test_without_any_gradient_nothing_moves(strategy: str, variant: str, runs: Runs) -> None:
    """But for the decay of the weights, as in a stock step."""
    recipe = no_gradient(strategy).name
    ours, stock = runs.of(f"{recipe}-{variant}"), runs.of(f"{recipe}-{STOCK}")
    for record, other in zip(ours, stock, strict=True):
        (mine,), (theirs,) = record.steps, other.steps
        assert_harmless(mine)
        assert mine.metrics["pcr/norm_sta"] == 0
        assert mine.metrics["pcr/norm_final"] == 0
        assert mine.norm == theirs.norm == 0
        assert mine.digest == theirs.digest
        assert mine.average is not None and mine.average["sums"] == {}
    assert norm(ours[0].steps[0].gradient) == 0


@every_layout
@every_break
@every_batch
def test_broken_step_is_skipped_and_forgotten(
    strategy: str, variant: str, batch: str, runs: Runs
) -> None:
    for record in runs.of(f"{broken(strategy, batch).name}-{variant}"):
        before, skipped, after = record.steps
        assert not math.isfinite(skipped.norm)
        assert skipped.digest == before.digest != after.digest
        assert before.metrics["pcr/degenerate_blocks"] == 0
        assert skipped.metrics["pcr/degenerate_blocks"] == WIDE.layers
        assert skipped.metrics["pcr/conflict_rate"] == 0
        assert before.average is not None and len(before.average["sums"]) == WIDE.layers
        assert skipped.average == before.average != after.average


@every_layout
@every_break
@every_batch
def test_ranks_agree_on_a_broken_step(strategy: str, variant: str, batch: str, runs: Runs) -> None:
    """Only the last one has seen the broken row."""
    first, last = runs.of(f"{broken(strategy, batch).name}-{variant}")
    for mine, theirs in zip(first.steps, last.steps, strict=True):
        assert mine.digest == theirs.digest
        assert mine.average == theirs.average
        shared = {n for n in mine.metrics if n.startswith("pcr/")} - {"pcr/seconds"}
        assert shared == {n for n in theirs.metrics if n.startswith("pcr/")} - {"pcr/seconds"}
        for name in shared:
            assert mine.metrics[name] == theirs.metrics[name], name


@every_layout
@every_break
@every_batch
def test_the_step_after_it_is_the_one_without_it(
    strategy: str, variant: str, batch: str, runs: Runs
) -> None:
    """To the last bit: weights, gradient norm, averages and metrics."""
    hurt = runs.of(f"{broken(strategy, batch).name}-{variant}")
    for record, other in zip(hurt, runs.of(f"{sound(strategy).name}-{variant}"), strict=True):
        mine, theirs = record.steps[2], other.steps[1]
        assert math.isfinite(theirs.norm)
        assert mine.norm == theirs.norm
        assert mine.digest == theirs.digest
        assert mine.average == theirs.average
        for name, value in theirs.metrics.items():
            if name != "pcr/seconds":
                assert mine.metrics[name] == value, name
