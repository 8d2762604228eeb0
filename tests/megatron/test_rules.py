"""Two gradients on Megatron-core, in every layout, against the dense float64 oracle."""

import pytest
import torch

from tests.distributed.expected import Oracle, blocks_of, relative_errors
from tests.distributed.recipe import Recipe
from tests.distributed.records import CaseRecord, StepRecord
from tests.distributed.test_gradients import TIMES_STOCK
from tests.distributed.variants import STOCK, VARIANTS
from tests.megatron.cases import (
    AGAINST_ORACLE,
    CASES,
    DROPOUT,
    EXACT,
    LAYOUTS,
    MOST,
    PLAIN,
    PROBED,
    TENSOR,
    WHOLE,
    MegatronCase,
)
from tests.megatron.conftest import MegatronRuns
from tests.support.distances import difference, norm
from tests.support.tiny_model import MODELS

# Of a cosine, of alpha, of the variances. In float64 what is left is the rounding of sums.
TOLERANCE = {"fp32": 3e-6, "fp64": 1e-12, "bf16": 5e-2, "fp16": 5e-3}

RULES = [pytest.param(c, id=c.name) for c in (*AGAINST_ORACLE, *PROBED) if c.variant != STOCK]
OURS = [pytest.param(c, id=c.name) for c in CASES if c.variant != STOCK]
STEP_OF = [pytest.param(layout, id=layout.name) for layout in LAYOUTS]
SAME_UPDATE = [*STEP_OF, pytest.param(DROPOUT, id=DROPOUT.name)]


def with_metrics(records: list[CaseRecord], step: int) -> StepRecord:
    """What a rank of the last pipeline stage has seen."""
    return next(r.steps[step] for r in records if r.steps[step].metrics)


@pytest.mark.parametrize("case", RULES)
def test_combined_gradient(case: MegatronCase, runs: MegatronRuns, oracle: Oracle) -> None:
    """Within three times the stock engine's own error in the same layout."""
    replicas, stock = runs.replicas(case), runs.stock_replicas(case)
    blocks = blocks_of(MODELS[case.recipe.model], "mlp")
    expected, plain = oracle.steps(case, replicas), oracle.stock(case, stock)
    for step, (ours, summed) in enumerate(zip(expected, plain, strict=True)):
        stock_errors = relative_errors(stock[0].steps[step].gradient, summed, blocks)
        errors = relative_errors(replicas[0].steps[step].gradient, ours, blocks)
        assert max(errors.values()) < TIMES_STOCK * max(stock_errors.values()), errors


@pytest.mark.parametrize("case", RULES)
def test_every_block(case: MegatronCase, runs: MegatronRuns, oracle: Oracle) -> None:
    assert_every_block(case, runs, oracle)


def assert_every_block(case: MegatronCase, runs: MegatronRuns, oracle: Oracle) -> None:
    """Cosine, alpha, weight and variances of a case are the oracle's."""
    records, tolerance = runs.records(case), TOLERANCE[case.recipe.precision]
    for step, expected in enumerate(oracle.steps(case, runs.replicas(case))):
        metrics = with_metrics(records, step).metrics
        for label, block in expected.blocks.items():
            name = f"pcr/block/{label}/"
            assert metrics[name + "cos"] == pytest.approx(block.cosine, rel=0, abs=tolerance)
            scale = (block.plasticity / block.stability) ** 0.5
            assert metrics[name + "beta_eff"] == pytest.approx(
                block.beta_effective, rel=0, abs=tolerance * scale
            )
            assert (name + "alpha" in metrics) == block.conflict
            if block.conflict:
                assert metrics[name + "alpha"] == pytest.approx(block.alpha, rel=0, abs=tolerance)
        blocks = [block for block in expected.blocks.values() if block.variances]
        for column, objective in enumerate(("pla", "sta")):
            mean = sum(b.variances[column] for b in blocks if b.variances) / len(blocks)
            assert metrics[f"pcr/var_{objective}"] == pytest.approx(mean, rel=tolerance)


@pytest.mark.parametrize("case", OURS)
def test_all_ranks_agree_to_the_last_bit(case: MegatronCase, runs: MegatronRuns) -> None:
    first, *others = runs.records(case)
    for other in others:
        for mine, theirs in zip(first.steps, other.steps, strict=True):
            assert mine.digest == theirs.digest
            assert mine.average == theirs.average


@pytest.mark.parametrize("layout", SAME_UPDATE)
def test_sum_is_the_stock_gradient(layout: object, runs: MegatronRuns) -> None:
    ours, stock = (_of(runs, layout, variant) for variant in ("sum", STOCK))
    assert norm(difference(ours.gradient, stock.gradient)) < 1e-6 * norm(stock.gradient)


@pytest.mark.parametrize("layout", SAME_UPDATE)
def test_observe_is_the_stock_update(layout: object, runs: MegatronRuns) -> None:
    ours, stock = (_of(runs, layout, variant) for variant in ("observe", STOCK))
    assert ours.digest == stock.digest
    for name, gradient in stock.gradient.items():
        assert torch.equal(ours.gradient[name], gradient), name


@pytest.mark.parametrize(
    ("layout", "variant"),
    [
        *((layout, "paper") for layout in LAYOUTS),
        *((layout, "attention_sequences") for layout in (TENSOR, MOST)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_alpha_does_not_depend_on_the_layout(
    layout: object, variant: str, runs: MegatronRuns
) -> None:
    """The same units, whatever the model is cut into; with data-parallel ranks, too.

    And the same probes of attention, whose biases are cut as its rows are.
    """
    case, whole = (_case(where, variant, EXACT) for where in (layout, WHOLE))
    spread = with_metrics(runs.records(case), 0).metrics
    alone = with_metrics(runs.records(whole), 0).metrics
    names = [name for name in alone if name.endswith(("/cos", "/alpha"))]
    assert len(names) > 4
    for name in names:
        assert spread[name] == pytest.approx(alone[name], rel=0, abs=TOLERANCE["fp64"]), name


def _case(layout: object, variant: str, recipe: Recipe = PLAIN) -> MegatronCase:
    return next(c for c in CASES if (c.layout, c.recipe, c.variant) == (layout, recipe, variant))


def _of(runs: MegatronRuns, layout: object, variant: str) -> StepRecord:
    return runs.records(_case(layout, variant))[0].steps[0]


def test_the_variants_are_the_oracles() -> None:
    assert all(VARIANTS[c.variant].oracle for c in AGAINST_ORACLE if c.variant != STOCK)
