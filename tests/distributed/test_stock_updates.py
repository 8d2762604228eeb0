"""`null` is veRL untouched, `sum` and `observe` make the stock update."""

import pytest
import torch

from tests.distributed.cases import CASES, Case
from tests.distributed.conftest import Runs
from tests.distributed.layouts import LAYOUTS
from tests.distributed.records import CaseRecord
from tests.distributed.variants import CONFIGURED, STOCK

STOCK_ENGINE = "verl.workers.engine.fsdp.transformer_impl.FSDPEngineWithLMHead"
# Two gradients that are rounded and added, against one that is rounded.
ROUNDING = {"fp32": 1e-6, "fp16": 3e-3, "bf16": 3e-2}
SUMS = [
    pytest.param(case, ranks, id=f"{case.name}-{ranks}")
    for case in CASES
    for ranks in case.ranks
    if case.variant.startswith("sum") and not case.recipe.name.startswith("accumulate")
]
UPDATES = [
    *(pytest.param("train", ranks, id=f"train-{ranks}") for ranks in (1, 2, 3)),
    *(pytest.param(r.name, ranks, id=f"{r.name}-{ranks}") for r, ranks in LAYOUTS),
]
OBSERVED = [
    pytest.param(case, ranks, id=f"{case.name}-{ranks}")
    for case in CASES
    for ranks in case.ranks
    if case.variant in ("observe", "observe_halves")
]


def assert_same_bits(ours: CaseRecord, stock: CaseRecord) -> None:
    """Every step's gradient, norm and weights are equal to the last bit."""
    assert len(ours.steps) == len(stock.steps) > 0
    for mine, theirs in zip(ours.steps, stock.steps, strict=True):
        assert mine.norm == theirs.norm
        assert mine.weights.keys() == theirs.weights.keys()
        assert 0 < len(mine.gradient) == len(theirs.gradient)
        for name, weight in theirs.weights.items():
            assert torch.equal(mine.weights[name], weight), name
        for name, gradient in theirs.gradient.items():
            assert torch.equal(mine.gradient[name], gradient), name


def test_training_moves_the_weights(runs: Runs) -> None:
    first, second = runs.of("train-stock")[0].steps
    assert all(not torch.equal(w, second.weights[name]) for name, w in first.weights.items())


@pytest.mark.parametrize(("name", "ranks"), UPDATES)
def test_null_is_the_stock_engine_bit_by_bit(name: str, ranks: int, runs: Runs) -> None:
    without, configured = (runs.of(f"{name}-{v}", ranks)[0] for v in (STOCK, CONFIGURED))
    assert not without.rule_loaded
    assert without.engine == configured.engine == STOCK_ENGINE
    assert_same_bits(configured, without)
    assert configured.steps[0].metrics == without.steps[0].metrics


@pytest.mark.parametrize(("case", "ranks"), OBSERVED)
def test_observe_leaves_the_update_alone(case: Case, ranks: int, runs: Runs) -> None:
    observed, stock = runs.of(case.name, ranks)[0], runs.stock(case, ranks)[0]
    assert observed.engine != STOCK_ENGINE
    assert_same_bits(observed, stock)
    for step in observed.steps:
        assert step.metrics["pcr/active"] == 1.0
        assert any(name.endswith("/cos") and "/block/" in name for name in step.metrics)


@pytest.mark.parametrize("variant", ["observe", "observe_halves"])
def test_observe_keeps_the_entropy_bonus_and_every_stock_metric(variant: str, runs: Runs) -> None:
    observed, stock = runs.of(f"entropy-{variant}")[0], runs.of("entropy-stock")[0]
    assert_same_bits(observed, stock)
    for mine, theirs in zip(observed.steps, stock.steps, strict=True):
        assert "actor/entropy_loss" in theirs.metrics
        assert "pcr/cos" in mine.metrics
        assert theirs.metrics.items() <= mine.metrics.items()


def test_observe_sparsely(runs: Runs) -> None:
    observed = runs.of("train-observe_sparse")[0]
    assert_same_bits(observed, runs.of("train-stock")[0])
    measured, skipped = observed.steps
    assert "pcr/cos" in measured.metrics
    assert {name for name in skipped.metrics if name.startswith("pcr/")} == {"pcr/active"}


def test_observe_sees_what_pcr_sees(runs: Runs) -> None:
    """The first step starts from the same weights."""
    seen = runs.of("train-observe")[0].steps[0].metrics
    pcr = runs.of("train-paper")[0].steps[0].metrics
    for name in ("cos", "norm_pla", "norm_sta", "var_pla", "var_sta", "conflict_rate", "alpha"):
        assert seen[f"pcr/{name}"] == pcr[f"pcr/{name}"], name


@pytest.mark.parametrize(("case", "ranks"), SUMS)
def test_sum_is_the_stock_gradient(case: Case, ranks: int, runs: Runs) -> None:
    """Of the whole gradient; with dropout only if both passes drop the same units."""
    ours, stock = runs.of(case.name, ranks)[0], runs.stock(case, ranks)[0]
    mine, theirs = ours.steps[0].gradient, stock.steps[0].gradient
    difference = sum(float((mine[n] - theirs[n]).square().sum()) for n in theirs)
    size = sum(float(gradient.square().sum()) for gradient in theirs.values())
    assert difference**0.5 < ROUNDING[case.recipe.precision] * size**0.5


@pytest.mark.parametrize(("case", "ranks"), SUMS)
def test_stock_metrics_keep_names_and_values(case: Case, ranks: int, runs: Runs) -> None:
    """The same numbers out of two passes, up to the rounding of single forward passes."""
    tolerance = ROUNDING[case.recipe.precision]
    for ours, stock in zip(runs.of(case.name, ranks), runs.stock(case, ranks), strict=True):
        mine, theirs = ours.steps[0].metrics, stock.steps[0].metrics
        assert {name for name in mine if not name.startswith("pcr/")} == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, rel=tolerance, abs=tolerance / 10), name
