"""The step of OpenRLHF's own trainer, DeepSpeed's stages and the rules, against the oracle."""

import math

import pytest

from tests.distributed.expected import blocks_of, relative_errors
from tests.openrlhf.cases import CASES, Case
from tests.openrlhf.conftest import BY_NAME, Runs
from tests.openrlhf.records import Record
from tests.oracle.gradients import Gradient
from tests.support.distances import difference, norm
from tests.support.tiny_model import MODELS

# float32 against float64: OpenRLHF's own step is 6e-7 off the same oracle.
TOLERANCE = 2e-6
# The statistics are sums of float32 products in float64.
STATISTICS = 2e-6

_EXACT = [
    (case, ranks)
    for case in CASES
    for ranks in case.ranks
    if not case.adam
    and "bf16" not in case.arguments.values()
    and case.name != "zero2-dynamic-stock"
]
_BLOCK_BY_BLOCK = ("pcr", "two_forward", "sequences")
_PROJECTED = [(case, ranks) for case, ranks in _EXACT if case.rule in _BLOCK_BY_BLOCK]


def identities(cases: list[tuple[Case, int]]) -> list[str]:
    """Names of parametrised tests."""
    return [f"{case.name}-{ranks}" for case, ranks in cases]


def gradient(case: Case, record: Record) -> Gradient:
    """What the optimizer has stepped along, without the clipping."""
    found = record.gradient()
    if not case.max_norm:
        return found
    # DeepSpeed adds 1e-6 to the norm.
    factor = (record.status["actor_grad_norm"] + 1e-6) / case.max_norm
    return {name: factor * tensor for name, tensor in found.items()}


@pytest.mark.parametrize(("case", "ranks"), _EXACT, ids=identities(_EXACT))
def test_the_combined_gradient_is_the_oracles(runs: Runs, case: Case, ranks: int) -> None:
    record = runs.of(case.name, ranks)[0]
    step, found = runs.expected(case, ranks), gradient(case, record)
    errors = relative_errors(found, step, blocks_of(MODELS[case.model], "mlp"))
    assert max(errors.values()) < TOLERANCE, errors
    # The whole of what the optimizer steps along, on any stage; adapters are less exact.
    whole = TOLERANCE if case.model == "lora" else 1e-6
    assert norm(difference(found, step.gradient)) < whole * norm(step.gradient)


# Without ZeRO OpenRLHF logs a norm of 0, with or without a rule.
_WITH_NORM = [(case, n) for case, n in _EXACT if case.arguments.get("ds__zero_stage") != 0]


@pytest.mark.parametrize(("case", "ranks"), _WITH_NORM, ids=identities(_WITH_NORM))
def test_the_norm_that_is_clipped_is_that_of_the_combined_gradient(
    runs: Runs, case: Case, ranks: int
) -> None:
    expected = norm(runs.expected(case, ranks).gradient)
    found = runs.of(case.name, ranks)[0].status["actor_grad_norm"]
    assert found == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize(("case", "ranks"), _PROJECTED, ids=identities(_PROJECTED))
def test_every_block_has_the_oracles_alpha(runs: Runs, case: Case, ranks: int) -> None:
    status = runs.of(case.name, ranks)[0].status
    for block, result in runs.expected(case, ranks).blocks.items():
        found = status.get(f"pcr/block/{block}/alpha", math.nan)
        assert (found == found) == result.conflict, block
        if result.conflict:
            assert found == pytest.approx(result.alpha, rel=STATISTICS), block
        # A cosine moves by the sum of both gradients' relative errors, however small it is.
        cosine = status[f"pcr/block/{block}/cos"]
        assert cosine == pytest.approx(result.cosine, abs=TOLERANCE), block


@pytest.mark.parametrize("ranks", [2, 3])
def test_replicas_stay_bitwise_equal(runs: Runs, ranks: int) -> None:
    for case in CASES:
        # On ZeRO-3 there are no replicas: every rank gathers the same shards.
        if ranks not in case.ranks or case.arguments.get("ds__zero_stage") == 3:
            continue
        first, *others = [record.after for record in runs.of(case.name, ranks)]
        for other in others:
            assert all(first[name].equal(other[name]) for name in first), case.name


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_sum_is_the_stock_update(runs: Runs, stage: int) -> None:
    """Two clipped steps of AdamW; the update, and not the weights, sets the scale.

    AdamW divides by the size of each element: where a gradient is almost zero, rounding is not.
    Measured 2e-5; the gradients themselves are compared in the next test.
    """
    stock, own = (runs.of(f"adam{stage}-{rule}")[0] for rule in ("stock", "sum"))
    moved = norm(difference(stock.after, stock.before))
    assert norm(difference(own.after, stock.after)) < 1e-4 * moved
    assert own.status["actor_grad_norm"] == pytest.approx(stock.status["actor_grad_norm"], rel=1e-6)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_gradient_of_sum_is_the_stock_gradient(runs: Runs, stage: int) -> None:
    stock, own = (runs.of(f"zero{stage}-{rule}")[0].gradient() for rule in ("stock", "sum"))
    assert norm(difference(own, stock)) < 1e-6 * norm(stock)


def test_there_are_blocks_with_and_without_a_conflict(runs: Runs) -> None:
    conflicts = [b.conflict for b in runs.expected(BY_NAME["zero2-pcr"]).blocks.values()]
    assert any(conflicts) and not all(conflicts)


def test_pcr_is_not_the_stock_update(runs: Runs) -> None:
    stock, own = (runs.of(f"zero2-{rule}")[0].gradient() for rule in ("stock", "pcr"))
    assert norm(difference(own, stock)) > 1e-2 * norm(stock)


def test_the_stock_trainer_is_the_stock_class(runs: Runs) -> None:
    for case in CASES:
        if 2 in case.ranks:
            kind = {"stock": "ActorPPOTrainer", "observe": "ObservingTrainer"}.get(
                case.rule, "TwoGradientTrainer"
            )
            assert runs.of(case.name)[0].kinds[0] == kind, case.name


def test_stock_dynamic_batches_lose_micro_batches_on_zero2(runs: Runs) -> None:
    """DeepSpeed keeps the last micro-batch alone; docs/openrlhf_upstream.md says why."""
    case = BY_NAME["zero2-dynamic-stock"]
    records = runs.of(case.name)
    assert len(records[0].rows) > 1
    step = runs.expected(case)
    errors = relative_errors(records[0].gradient(), step, blocks_of(MODELS["wide"], "mlp"))
    assert min(errors.values()) > 0.1


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_sum_is_the_stock_update_within_its_rounding(runs: Runs, stage: int) -> None:
    """Stock adds micro-batches up in bf16, with a rule they are added in float32."""
    stock, own = (runs.of(f"bf16_{stage}-{rule}")[0].gradient() for rule in ("stock", "sum"))
    assert norm(difference(own, stock)) < 2e-2 * norm(stock)


_IN_BF16 = [case for case in CASES if "bf16" in case.arguments.values() and case.rule == "pcr"]


@pytest.mark.parametrize("case", _IN_BF16, ids=[case.name for case in _IN_BF16])
def test_bf16_is_the_oracles_step_within_its_rounding(runs: Runs, case: Case) -> None:
    """Of the weights, too: the oracle's are those of float32."""
    record, step = runs.of(case.name)[0], runs.expected(case)
    assert norm(difference(record.gradient(), step.gradient)) < 3e-2 * norm(step.gradient)
    assert record.status["pcr/conflict_rate"] > 0


def test_a_step_that_deepspeed_leaves_out_is_not_averaged(runs: Runs) -> None:
    """An infinite gradient outside the scope, on ZeRO-2 in bf16."""
    record = runs.of("bf16_skipped")[0]
    made, left_out = record.steps
    assert made.weights == left_out.weights
    assert record.averages[0]["sums"]
    assert record.averages[1] == record.averages[0]
