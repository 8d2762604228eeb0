"""A run that is killed goes on as if nothing had happened; a rule is switched on and off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.distributed.inputs import Inputs
from tests.distributed.records import CaseRecord, StepRecord
from tests.distributed.resuming import STRATEGIES
from tests.support.launch import run_ranks

Phase = list[dict[str, CaseRecord]]
BOTH = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture(scope="module")
def root(inputs: Inputs) -> Path:
    """Where the checkpoints are."""
    return inputs.checkpoints["wide"].parent


def launch(root: Path, phase: str, ranks: int) -> None:
    run_ranks("tests.distributed.resuming", ranks, root / phase, arguments=[phase])


def read(root: Path, phase: str, ranks: int) -> Phase:
    return [
        torch.load(root / phase / f"records{rank}.pt", weights_only=False) for rank in range(ranks)
    ]


@pytest.fixture(scope="module")
def killed(root: Path) -> Phase:
    with pytest.raises(RuntimeError, match="exit status -9"):
        launch(root, "train", 2)
    return read(root, "train", 2)


@pytest.fixture(scope="module")
def resumed(root: Path, killed: Phase) -> Phase:
    launch(root, "resume", 2)
    return read(root, "resume", 2)


def pairs(first: Phase, name: str, second: Phase, other: str) -> Iterator[tuple[StepRecord, ...]]:
    """Second steps of two runs, rank by rank."""
    for mine, theirs in zip(first, second, strict=True):
        yield mine[name].steps[-1], theirs[other].steps[-1]


@BOTH
@pytest.mark.parametrize("units", ["", "_sequences"], ids=["micro_batch", "sequence"])
def test_the_next_step_is_the_same_to_the_last_bit(
    units: str, strategy: str, killed: Phase, resumed: Phase
) -> None:
    """With random probes, too, whose seeds go on where they were."""
    names = (f"{strategy}-resumed{units}", f"{strategy}-robust{units}")
    for after, before in pairs(resumed, names[0], killed, names[1]):
        assert after.digest == before.digest
        assert after.norm == before.norm
        assert before.average is not None and len(before.average["sums"]) == 4
        assert after.average == before.average
        for name, value in before.metrics.items():
            if name != "pcr/seconds":
                assert after.metrics[name] == value, name


@BOTH
def test_the_moving_average_matters(strategy: str, killed: Phase, resumed: Phase) -> None:
    """So that the test above compares something; without `extra` it starts anew."""
    before = killed[0][f"{strategy}-robust"].steps[-1]
    anew = resumed[0][f"{strategy}-without_extra"].steps[-1]
    assert before.average is not None and anew.average is not None
    weight = before.average["sums"]["model.layers.0.mlp"][2]
    assert weight == pytest.approx(0.19)  # two steps of 0.9: 0.1 + 0.09
    assert anew.average["sums"]["model.layers.0.mlp"][2] == pytest.approx(0.1)
    assert anew.metrics["pcr/alpha"] != before.metrics["pcr/alpha"]
    assert anew.digest != before.digest


@BOTH
def test_switched_off_in_the_middle(strategy: str, killed: Phase, resumed: Phase) -> None:
    """The stock engine takes the checkpoint, and its step is the sum of the two gradients."""
    stock = resumed[0][f"{strategy}-off"].steps[-1]
    summed = resumed[0][f"{strategy}-off_sum"].steps[-1]
    assert not any(name.startswith("pcr/") for name in stock.metrics)
    # Of the weights that PCR had reached, not of those of the stock run.
    assert stock.norm != killed[0][f"{strategy}-stock"].steps[-1].norm
    whole = torch.cat([gradient.flatten() for gradient in stock.gradient.values()])
    ours = torch.cat([summed.gradient[name].flatten() for name in stock.gradient])
    assert float((ours - whole).norm()) < 1e-6 * float(whole.norm())


@BOTH
def test_switched_on_in_the_middle(strategy: str, killed: Phase, resumed: Phase) -> None:
    """A stock checkpoint: weights and optimizer go on, the averages start."""
    on = resumed[0][f"{strategy}-on"].steps[-1]
    stock = killed[0][f"{strategy}-stock"].steps[-1]
    assert on.average is not None
    assert on.average["sums"]["model.layers.0.mlp"][2] == pytest.approx(0.1)
    assert on.metrics["pcr/active"] == 1.0
    # Same weights, same batch: the losses are those of the stock run's second step.
    for name in ("actor/pg_loss", "kl_loss"):
        assert on.metrics[name] == pytest.approx(stock.metrics[name], rel=1e-6, abs=1e-7)
    assert on.digest != stock.digest


@BOTH
def test_another_number_of_ranks_is_refused(strategy: str, root: Path, killed: Phase) -> None:
    if not (root / "other").exists():
        launch(root, "other", 1)
    error = read(root, "other", 1)[0][strategy].error
    assert error.startswith("ValueError")
    assert f"{strategy}-robust was written by 2 ranks and this run has 1" in error
    assert "verl.model_merger" in error


def test_contents_without_extra_have_no_averages(root: Path, resumed: Phase) -> None:
    """`save_contents=[model]`: nothing of ours, as veRL writes nothing of its schedule."""
    assert not (root / "checkpoints" / "model_only" / "pcr_state.json").exists()
    assert list((root / "checkpoints" / "model_only").glob("model_world_size_2_rank_*.pt"))
    for strategy in STRATEGIES:
        assert (root / "checkpoints" / f"{strategy}-robust" / "pcr_state.json").exists()
        assert not (root / "checkpoints" / f"{strategy}-stock" / "pcr_state.json").exists()


@pytest.mark.parametrize(("name", "failing"), [("first_reads", 0), ("second_checks", 1)])
def test_what_one_rank_cannot_read_ends_all(name: str, failing: int, resumed: Phase) -> None:
    """Instead of leaving the others in a collective; the launch would not have ended."""
    errors = [record[name].error for record in resumed]
    assert errors[failing].startswith("ValueError")
    assert all("is not readable" in error for error in errors)


def test_a_disk_without_space_for_our_part_ends_all(root: Path, resumed: Phase) -> None:
    """Only the first rank writes; a checkpoint without the averages is none."""
    first, second = (record["full"].error for record in resumed)
    assert first.startswith("OSError: [Errno 28] No space left on device")
    assert second.startswith("RuntimeError: The first rank has failed: OSError(28, 'No space left")
    assert not (root / "checkpoints" / "full" / "pcr_state.json").exists()
