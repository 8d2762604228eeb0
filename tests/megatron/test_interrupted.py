"""Who goes on after a step that ended with an error goes on as if it had not been."""

import pytest
import torch

from tests.megatron.cases import MegatronCase
from tests.megatron.conftest import MegatronRuns
from tests.megatron.records import MegatronRecord
from tests.megatron.router_cases import INTERRUPTED
from tests.megatron.test_routers import BIAS, COUNTED


def interrupted(case: MegatronCase, runs: MegatronRuns) -> list[MegatronRecord]:
    """Every rank's record of the case with an error before its first step."""
    return runs.scenario(f"interrupted-{case.name}", case.layout.ranks)


@pytest.mark.parametrize("case", INTERRUPTED, ids=lambda case: case.name)
def test_nothing_of_it_is_brought_back(case: MegatronCase, runs: MegatronRuns) -> None:
    """Neither what was set aside nor any statistics."""
    records, undisturbed = interrupted(case, runs), runs.records(case)
    for record, other in zip(records, undisturbed, strict=True):
        (after,), alone = record.steps, other.steps[0]
        assert "in the second pass" in record.error
        assert after.norm == alone.norm
        assert after.digest == alone.digest
        assert after.metrics.keys() == alone.metrics.keys()
        for name in after.metrics.keys() - {"pcr/seconds"}:
            assert after.metrics[name] == alone.metrics[name], name
    after, alone = records[0].steps[0], undisturbed[0].steps[0]
    assert all(torch.equal(after.gradient[name], g) for name, g in alone.gradient.items())


def test_routers_forget_it(runs: MegatronRuns) -> None:
    """The tokens that its first half has counted, and then count those of a step once."""
    case = INTERRUPTED[1]
    for record, other in zip(interrupted(case, runs), runs.records(case), strict=True):
        broken, after = record.routers
        names = [name for name in after if name.endswith((BIAS, COUNTED))]
        assert len(names) > 2
        for name in names:
            assert not broken[name].any(), name
            assert torch.equal(after[name], other.routers[0][name]), name
        assert any(after[name].any() for name in names if name.endswith(BIAS))
