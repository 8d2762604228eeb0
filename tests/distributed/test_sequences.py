"""The estimator `sequence`: probes of dense per-row gradients, whatever carries the rows."""

import math

import pytest

from tests.distributed.cases import PROBED, Case
from tests.distributed.conftest import Runs
from tests.distributed.expected import Oracle
from tests.distributed.test_statistics import TOLERANCE

CASES = [
    pytest.param(case, ranks, id=f"{case.name}-{ranks}") for case in PROBED for ranks in case.ranks
]


@pytest.mark.parametrize(("case", "ranks"), CASES)
def test_every_block(case: Case, ranks: int, runs: Runs, oracle: Oracle) -> None:
    records = runs.of(case.name, ranks)
    tolerance = TOLERANCE[case.recipe.precision]
    for step, expected in enumerate(oracle.steps(case, records)):
        metrics = records[0].steps[step].metrics
        assert metrics["pcr/degenerate_blocks"] == 0
        assert any(block.conflict for block in expected.blocks.values())
        for label, block in expected.blocks.items():
            name = f"pcr/block/{label}/"
            assert metrics[name + "cos"] == pytest.approx(block.cosine, rel=0, abs=tolerance)
            assert (name + "alpha" in metrics) == (block.conflict and not math.isnan(block.alpha))
            if block.conflict:
                assert metrics[name + "alpha"] == pytest.approx(block.alpha, rel=0, abs=tolerance)


@pytest.mark.parametrize(("case", "ranks"), CASES)
def test_variances(case: Case, ranks: int, runs: Runs, oracle: Oracle) -> None:
    records = runs.of(case.name, ranks)
    tolerance = TOLERANCE[case.recipe.precision]
    for step, expected in enumerate(oracle.steps(case, records)):
        for index, name in enumerate(("pcr/var_pla", "pcr/var_sta")):
            found = [b.variances[index] for b in expected.blocks.values() if b.variances]
            assert len(found) == len(expected.blocks)
            value = records[0].steps[step].metrics[name]
            assert value == pytest.approx(sum(found) / len(found), rel=tolerance)
