"""A run on Megatron-core goes on from its checkpoint as if nothing had happened."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.distributed.inputs import Inputs
from tests.distributed.records import CaseRecord, StepRecord
from tests.megatron.resuming import LAYOUTS
from tests.megatron.shares import PRELOADED
from tests.support.launch import run_ranks

Phase = list[dict[str, CaseRecord]]
NAMES = [layout.name for layout in LAYOUTS]
FIRST = "decoder.layers.0.mlp"


def launch(root: Path, phase: str, ranks: int) -> Phase:
    folder = root / f"resuming_{phase}"
    run_ranks("tests.megatron.resuming", ranks, folder, arguments=[phase], preloaded=PRELOADED)
    return [torch.load(folder / f"records{rank}.pt", weights_only=False) for rank in range(ranks)]


@pytest.fixture(scope="module")
def root(inputs: Inputs) -> Path:
    """Where the checkpoints are."""
    return inputs.checkpoints["even"].parent


@pytest.fixture(scope="module")
def trained(root: Path) -> Phase:
    return launch(root, "train", 2)


@pytest.fixture(scope="module")
def resumed(root: Path, trained: Phase) -> Phase:
    return launch(root, "resume", 2)


def pairs(first: Phase, name: str, second: Phase, other: str) -> Iterator[tuple[StepRecord, ...]]:
    """Last steps of two runs, rank by rank."""
    for mine, theirs in zip(first, second, strict=True):
        yield mine[name].steps[-1], theirs[other].steps[-1]


@pytest.mark.parametrize("layout", NAMES)
def test_the_next_step_is_the_same_to_the_last_bit(
    layout: str, trained: Phase, resumed: Phase
) -> None:
    for after, before in pairs(resumed, f"{layout}-resumed", trained, f"{layout}-robust_beta"):
        assert after.digest == before.digest
        assert after.norm == before.norm
        assert before.average is not None and len(before.average["sums"]) == 4
        assert after.average == before.average
        for name, value in before.metrics.items():
            if name != "pcr/seconds":
                assert after.metrics[name] == value, name


@pytest.mark.parametrize("layout", NAMES)
def test_the_moving_average_matters(layout: str, trained: Phase, resumed: Phase) -> None:
    """So that the test above compares something; without `extra` it starts anew."""
    before = trained[0][f"{layout}-robust_beta"].steps[-1]
    anew = resumed[0][f"{layout}-without_extra"].steps[-1]
    assert before.average is not None and anew.average is not None
    assert before.average["sums"][FIRST][2] == pytest.approx(0.19)
    assert anew.average["sums"][FIRST][2] == pytest.approx(0.1)
    assert anew.digest != before.digest


@pytest.mark.parametrize("layout", NAMES)
def test_switched_on_in_the_middle(layout: str, trained: Phase, resumed: Phase) -> None:
    """A stock checkpoint: weights and optimizer go on, the averages start."""
    for on, stock in pairs(resumed, f"{layout}-on", trained, f"{layout}-stock"):
        assert on.average is not None
        assert on.average["sums"][FIRST][2] == pytest.approx(0.1)
        assert on.digest != stock.digest


@pytest.fixture(scope="module")
def other(root: Path, trained: Phase) -> dict[str, CaseRecord]:
    return launch(root, "other", 1)[0]


@pytest.mark.parametrize("source", ["robust_beta", "stock"])
def test_other_tensor_parallel_ranks_are_refused(source: str, other: dict[str, CaseRecord]) -> None:
    error = other[f"tensor2-{source}"].error
    assert error.startswith("ValueError")
    assert f"tensor2-{source} was written with tensor_model_parallel_size=2" in error
    assert "this run has 1" in error


def test_fewer_data_parallel_ranks_go_on_with_the_same_step(
    trained: Phase, other: dict[str, CaseRecord]
) -> None:
    """One in place of two, and all micro-batches on it: the sums have another order."""
    (after,) = other["data2_sharded"].steps
    before = trained[0]["data2_sharded-robust_beta"].steps[-1]
    assert after.average is not None and before.average is not None
    weights = {name: found[2] for name, found in before.average["sums"].items()}
    assert {name: found[2] for name, found in after.average["sums"].items()} == weights
    assert after.norm == pytest.approx(before.norm, rel=1e-6)
    names = [name for name in before.metrics if name.startswith("pcr/") and "seconds" not in name]
    assert len(names) > 10
    for name in names:
        assert after.metrics[name] == pytest.approx(before.metrics[name], rel=1e-5, abs=1e-7), name
    for name, weight in before.weights.items():
        torch.testing.assert_close(after.weights[name], weight, rtol=1e-6, atol=1e-7)
