"""The same checkpoint and mini-batch under FSDP2 and on Megatron-core, in float32."""

import pytest
import torch

from tests.distributed.inputs import Inputs
from tests.distributed.records import StepRecord
from tests.megatron.cases import CASES, LAYOUTS, PLAIN
from tests.megatron.conftest import MegatronRuns
from tests.megatron.test_rules import TOLERANCE, with_metrics
from tests.support.launch import run_ranks
from tests.support.tiny_model import MODELS


@pytest.fixture(scope="module")
def fsdp(inputs: Inputs) -> StepRecord:
    """The step of veRL's FSDP2 engine in one process."""
    folder = inputs.checkpoints["even"].parent / "fsdp"
    run_ranks("tests.megatron.fsdp_worker", 1, folder)
    step: StepRecord = torch.load(folder / "record.pt", weights_only=False).steps[0]
    return step


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_alpha_of_every_layer(layout: object, runs: MegatronRuns, fsdp: StepRecord) -> None:
    case = next(c for c in CASES if (c.layout, c.recipe, c.variant) == (layout, PLAIN, "paper"))
    assert {unit for record in runs.replicas(case) for unit in record.steps[0].units} == fsdp.units
    found = with_metrics(runs.records(case), 0).metrics
    names = [
        f"pcr/block/{layer}.mlp/{what}"
        for layer in range(MODELS[PLAIN.model].layers)
        for what in ("cos", "alpha")
    ]
    assert sum(name in fsdp.metrics for name in names) > MODELS[PLAIN.model].layers
    for name in names:
        assert (name in found) == (name in fsdp.metrics), name
        if name in found:
            expected = pytest.approx(fsdp.metrics[name], rel=0, abs=TOLERANCE["fp32"])
            assert found[name] == expected, name
