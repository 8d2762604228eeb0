"""Who goes on after a step that ended with an error goes on as if it had not been."""

import torch

from tests.megatron.conftest import MegatronRuns


def test_nothing_of_it_is_brought_back(runs: MegatronRuns) -> None:
    """Neither what was set aside (norms, which tensor-parallel ranks share) nor any statistics."""
    records = runs.of("interrupted", 2)
    for record in records:
        after, alone = record.steps
        assert "in the second pass" in record.error
        assert after.norm == alone.norm
        assert after.digest == alone.digest
        for name in after.metrics.keys() - {"pcr/seconds"}:
            assert after.metrics[name] == alone.metrics[name], name
    after, alone = records[0].steps
    assert all(torch.equal(after.gradient[name], g) for name, g in alone.gradient.items())
