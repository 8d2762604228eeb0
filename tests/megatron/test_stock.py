"""veRL's own Megatron engine in every layout: the ground that our tests stand on."""

import pytest
import torch

from tests.distributed.expected import Oracle, blocks_of, relative_errors
from tests.distributed.inputs import Inputs
from tests.distributed.records import digest
from tests.distributed.variants import CONFIGURED, STOCK
from tests.megatron.cases import CASES, DROPOUT, MegatronCase, stock
from tests.megatron.conftest import MegatronRuns
from tests.support.distances import norm
from tests.support.tiny_model import MODELS

ENGINE = "verl.workers.engine.megatron.transformer_impl.MegatronEngineWithLMHead"
# Rounding of the precision that the model computes in.
ERROR = {"fp64": 1e-13, "fp32": 2e-6, "bf16": 5e-2, "fp16": 5e-3}
STOCK_CASES = [pytest.param(case, id=case.name) for case in CASES if case.variant == STOCK]
EXPORTED = [
    case
    for case in STOCK_CASES
    if case.values[0].layout.distributed_optimizer and not case.values[0].layout.transformer
]
# The oracle knows no dropout: it has no random numbers.
EXPECTED = [case for case in STOCK_CASES if case.values[0].layout != DROPOUT]
TRAINED = [case for case in STOCK_CASES if case.values[0].recipe.learning_rate > 0]


@pytest.mark.parametrize("case", EXPECTED)
def test_gradient(case: MegatronCase, runs: MegatronRuns, oracle: Oracle) -> None:
    records = runs.replicas(case)
    blocks = blocks_of(MODELS[case.recipe.model], "mlp")
    expected = oracle.stock(case, records)[0]
    errors = relative_errors(records[0].steps[0].gradient, expected, blocks)
    assert records[0].steps[0].gradient.keys() == expected.gradient.keys()
    assert max(errors.values()) < ERROR[case.recipe.precision]


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.variant == CONFIGURED], ids=lambda c: c.name
)
def test_null_is_the_stock_engine_bit_by_bit(case: MegatronCase, runs: MegatronRuns) -> None:
    ours, theirs = runs.records(case)[0], runs.records(stock(case))[0]
    assert not theirs.rule_loaded
    assert ours.engine == theirs.engine == ENGINE
    for mine, other in zip(ours.steps, theirs.steps, strict=True):
        assert mine.norm == other.norm
        assert mine.digest == other.digest
        assert digest(mine.gradient) == digest(other.gradient)


@pytest.mark.parametrize("case", STOCK_CASES)
def test_norm_is_that_of_the_whole_gradient(case: MegatronCase, runs: MegatronRuns) -> None:
    records = runs.records(case)
    size = norm(records[0].steps[0].gradient)
    assert [record.steps[0].norm for record in records] == pytest.approx([size] * len(records))


@pytest.mark.parametrize("case", STOCK_CASES)
def test_every_row_is_seen_once(case: MegatronCase, runs: MegatronRuns) -> None:
    rows = [
        row
        for record in runs.replicas(case)
        for micro_batch in record.steps[0].micro_batches
        for row in micro_batch
    ]
    assert sorted(rows) == list(range(16))


@pytest.mark.parametrize("case", STOCK_CASES)
def test_replicas_are_equal_to_the_last_bit_after_a_step(
    case: MegatronCase, runs: MegatronRuns
) -> None:
    assert len({record.steps[0].digest for record in runs.records(case)}) == 1


@pytest.mark.parametrize("case", TRAINED)
def test_step_moves_the_weights(case: MegatronCase, runs: MegatronRuns, inputs: Inputs) -> None:
    records = runs.records(case)
    before = inputs.weights[case.recipe.model]
    after = records[0].steps[0].weights
    assert records[0].engine == ENGINE
    assert after.keys() == before.keys()
    assert not any(torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("case", EXPORTED)
def test_exported_weights_are_the_checkpoints(
    case: MegatronCase, runs: MegatronRuns, inputs: Inputs
) -> None:
    """And exporting them does no harm to what comes after, which the other tests see."""
    before = inputs.weights[case.recipe.model]
    exported = runs.records(case)[0].exported
    assert exported.keys() == before.keys()
    for name, weight in before.items():
        assert torch.equal(exported[name], weight.to(exported[name].dtype)), name
