"""fp16 with Megatron-core's own scaler of the loss."""

import math

import pytest

from tests.distributed.records import CaseRecord
from tests.megatron.conftest import MegatronRuns

QUANTITIES = ("norm_pla", "norm_sta", "norm_final", "var_pla", "var_sta", "beta_eff")


@pytest.fixture
def overflow(runs: MegatronRuns) -> list[CaseRecord]:
    return runs.of("overflow", 2)


@pytest.mark.parametrize("name", ["overflow", "overflow-stock"])
def test_an_overflow_ends_the_run(name: str, runs: MegatronRuns) -> None:
    """Unlike FSDP's, veRL's Megatron engine does not go on after a step that was skipped."""
    for record in runs.of(name, 2):
        assert record.error.startswith("Megatron optimizer step failed")


def test_an_overflown_step_is_forgotten(overflow: list[CaseRecord]) -> None:
    """Who goes on after it all the same goes on as if it had not been."""
    for record in overflow:
        first, second, alone, _ = record.steps
        assert math.isfinite(first.norm)
        assert first.average is not None and first.average["sums"]
        assert first.average == alone.average != second.average
        assert first.digest == alone.digest != second.digest
        for name, value in alone.metrics.items():
            if name != "pcr/seconds":
                assert first.metrics[name] == value, name


def test_statistics_do_not_depend_on_the_scale(overflow: list[CaseRecord]) -> None:
    """As far as float16 can tell, whose smallest numbers are not as fine."""
    steps = next(record.steps for record in overflow if record.steps[0].metrics)
    _, _, large, small = steps
    for name in QUANTITIES:
        expected = pytest.approx(large.metrics[f"pcr/{name}"], rel=1e-3)
        assert small.metrics[f"pcr/{name}"] == expected, name
