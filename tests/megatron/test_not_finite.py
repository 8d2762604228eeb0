"""A step whose gradient is not finite, which Megatron-core itself sees under fp16 alone."""

import math

import pytest

from tests.distributed.variants import STOCK
from tests.megatron.cases import MegatronCase
from tests.megatron.conftest import MegatronRuns
from tests.megatron.records import MegatronRecord
from tests.megatron.scenarios import BROKEN, NOT_FINITE, SOUND
from tests.support.tiny_model import EVEN

WITH_RULE = [
    case for case in NOT_FINITE if case.recipe is BROKEN and case.variant not in (STOCK, "observe")
]
AS_STOCK = [case for case in NOT_FINITE if case.variant in (STOCK, "observe")]
# Once the weights are lost; a trainer logs the last as `actor/kl_loss`. A NaN is no token that was
# clipped, so those shares are 0.
LOST_METRICS = {"actor/pg_loss", "actor/ppo_kl", "kl_loss"}
every_case = pytest.mark.parametrize("case", WITH_RULE, ids=lambda case: case.name)
every_stock_case = pytest.mark.parametrize("case", AS_STOCK, ids=lambda case: case.name)


def records(case: MegatronCase, runs: MegatronRuns) -> list[MegatronRecord]:
    return runs.scenario(case.name, case.layout.ranks)


@every_case
def test_the_step_is_skipped_and_forgotten(case: MegatronCase, runs: MegatronRuns) -> None:
    for record in records(case, runs):
        before, skipped, after = record.steps
        assert math.isnan(skipped.norm)
        assert skipped.digest == before.digest != after.digest
        assert before.average is not None and before.average["sums"]
        assert skipped.average == before.average != after.average


@every_case
def test_it_is_logged(case: MegatronCase, runs: MegatronRuns) -> None:
    """Where veRL collects metrics; the blocks of all ranks are counted."""
    with_metrics = [record for record in records(case, runs) if record.steps[1].metrics]
    assert with_metrics
    for record in with_metrics:
        before, skipped, _ = (step.metrics for step in record.steps)
        assert before["pcr/degenerate_blocks"] == 0
        assert skipped["pcr/degenerate_blocks"] == EVEN.layers
        assert skipped["pcr/conflict_rate"] == 0


@every_case
def test_the_step_after_it_is_the_one_without_it(case: MegatronCase, runs: MegatronRuns) -> None:
    """To the last bit: weights, gradient norm, averages and metrics."""
    [alone] = [
        other
        for other in NOT_FINITE
        if other.recipe is SOUND and (other.layout, other.variant) == (case.layout, case.variant)
    ]
    for record, sound in zip(records(case, runs), records(alone, runs), strict=True):
        mine, theirs = record.steps[2], sound.steps[1]
        assert math.isfinite(theirs.norm)
        assert (mine.norm, mine.digest, mine.average) == (
            theirs.norm,
            theirs.digest,
            theirs.average,
        )
        for name, value in theirs.metrics.items():
            if name != "pcr/seconds":
                assert mine.metrics[name] == value, name


@every_stock_case
def test_stock_verl_loses_its_weights(case: MegatronCase, runs: MegatronRuns) -> None:
    """So does `observe`, whose update is veRL's own."""
    before, broken, _ = records(case, runs)[0].steps
    assert not [name for name, weight in before.weights.items() if weight.isnan().any()]
    assert broken.weights
    assert all(weight.isnan().any() for weight in broken.weights.values())


@every_stock_case
def test_stock_verl_goes_on_without_a_word(case: MegatronCase, runs: MegatronRuns) -> None:
    """The norm is NaN at once, as the loss of the rank with that row; the other losses, later."""
    found = records(case, runs)
    assert math.isnan(found[-1].steps[1].metrics["actor/pg_loss"])
    for record in found:
        before, broken, after = record.steps
        assert math.isfinite(before.norm)
        assert math.isnan(broken.norm) and math.isnan(after.norm)
        stock = {name: v for name, v in after.metrics.items() if not name.startswith("pcr/")}
        assert {name for name, value in stock.items() if math.isnan(value)} == LOST_METRICS
        assert not any(math.isnan(value) for value in before.metrics.values())
