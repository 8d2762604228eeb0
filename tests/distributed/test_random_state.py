"""Both passes see the same random numbers, and the stream goes on as after a stock step."""

import pytest
import torch

from tests.distributed.conftest import Runs


def test_dropout_changes_the_gradient(runs: Runs) -> None:
    """Otherwise these tests would prove nothing."""
    name = "model.layers.0.mlp.up_proj.weight"
    with_dropout = runs.of("dropout-stock")[0].steps[0].gradient[name]
    without = runs.of("train-stock")[0].steps[0].gradient[name]
    assert float((with_dropout - without).norm()) > 0.01 * float(without.norm())


def test_ranks_draw_different_numbers(runs: Runs) -> None:
    first, second = (record.steps[0].random_state for record in runs.of("dropout-stock"))
    assert first is not None and second is not None
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("recipe", "variant"),
    [
        *(("dropout", variant) for variant in ("paper", "sum", "observe")),
        *(("dropout_checkpointed", variant) for variant in ("sum", "sum_recomputed_twice")),
    ],
)
def test_stream_goes_on_as_after_a_stock_step(recipe: str, variant: str, runs: Runs) -> None:
    stocks = runs.of(f"{recipe}-stock")
    for ours, stock in zip(runs.of(f"{recipe}-{variant}"), stocks, strict=True):
        for mine, theirs in zip(ours.steps, stock.steps, strict=True):
            assert mine.random_state is not None and theirs.random_state is not None
            assert torch.equal(mine.random_state, theirs.random_state)


def test_observe_with_dropout_is_the_stock_update(runs: Runs) -> None:
    observed, stock = runs.of("dropout-observe")[0], runs.of("dropout-stock")[0]
    for mine, theirs in zip(observed.steps, stock.steps, strict=True):
        assert "pcr/cos" in mine.metrics
        for name, weight in theirs.weights.items():
            assert torch.equal(mine.weights[name], weight), name
