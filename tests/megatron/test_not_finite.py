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
every_case = pytest.mark.parametrize("case", WITH_RULE, ids=lambda case: case.name)


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


@pytest.mark.parametrize("case", AS_STOCK, ids=lambda case: case.name)
def test_stock_verl_loses_its_weights(case: MegatronCase, runs: MegatronRuns) -> None:
    """So does `observe`, whose update is veRL's own."""
    first = records(case, runs)[0]
    lost = [name for name, weight in first.steps[1].weights.items() if weight.isnan().any()]
    assert lost
    assert not [name for name, w in first.steps[0].weights.items() if w.isnan().any()]
