"""Layers are recomputed once for both signals, or for each; gradients: `test_gradients`."""

import pytest
import torch

from tests.distributed.conftest import Runs
from tests.distributed.recomputing import ONCE, TWICE


@pytest.mark.parametrize("variant", [*ONCE, *TWICE])
def test_how_often_layers_are_run_and_gathered(variant: str, runs: Runs) -> None:
    """Gathered as often as they are run; every signal is reduced once; nothing stays there.

    In the first step of a process one forward pass of one of three micro-batches more shows
    whether the layers are a chain.
    """
    times = 2 if variant in ONCE else 3
    for record in runs.of(f"recomputations-{variant}"):
        found = record.steps[0].metrics
        assert found["forward"] == times
        assert found["first"] == times + (1 / 3 if variant in ONCE else 0)
        assert found["all-gather"] == times
        assert found["reduce-scatter"] == (1 if "combined" in variant else 2)
        assert found["reduce-scatter scope"] == (1 if "combined" in variant else 0)
        assert found["open"] == found["alive"] == 0


@pytest.mark.parametrize(("reshard", "times"), [(True, 3), (False, 1)])
def test_layers_that_stay_gathered_do_so_up_to_the_second_backward_pass(
    reshard: bool, times: int, runs: Runs
) -> None:
    """Where they do not, each of the three passes gathers them."""
    for record in runs.of(f"gatherings-{reshard}"):
        found = record.steps[0].metrics
        assert found["forward"] == found["first"] == 1
        assert found["all-gather"] == times
        assert found["reduce-scatter"] == 2
        assert found["open"] == 0


def test_layers_that_are_no_chain_are_recomputed_for_each(runs: Runs) -> None:
    """The same bits as where that is asked for."""
    found, asked = (
        runs.of(f"no_chain-{v}")[0].steps[0] for v in ("paper", "paper_recomputed_twice")
    )
    assert found.digest == asked.digest
    for name, gradient in asked.gradient.items():
        assert torch.equal(found.gradient[name], gradient), name


def test_a_chain_that_breaks_stops_the_run(runs: Runs) -> None:
    for record in runs.of("broken_chain"):
        assert record.error.startswith("RuntimeError: pcr.share_recomputation: model.layers.2 does")
        assert "not get the output of the layer before" in record.error
        assert "Set it to false" in record.error


@pytest.mark.parametrize("variant", ["paper", "robust_halves_combined"])
def test_a_way_around_layers_stops_the_run(variant: str, runs: Runs) -> None:
    """The KL's signal at that layer's output would have parts that come at other times."""
    for record in runs.of(f"way_around-{variant}"):
        assert "pcr.share_recomputation: the output of model.layers.1 is used" in record.error
