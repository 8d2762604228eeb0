"""One checkpoint and one mini-batch in veRL on FSDP2 and in OpenRLHF on ZeRO-2: the same step."""

import json
from pathlib import Path

import pytest
import torch

from tests.distributed.expected import blocks_of
from tests.distributed.records import StepRecord
from tests.openrlhf.conftest import BY_NAME, Runs
from tests.openrlhf.records import Record
from tests.openrlhf.test_gradients import STATISTICS, TOLERANCE
from tests.openrlhf.verl_side import CASE, ROWS
from tests.support.distances import difference, norm
from tests.support.launch import run_ranks
from tests.support.tiny_model import MODELS

OPENRLHF = BY_NAME["zero2-pcr"]
RANKS = 2
BLOCKS = blocks_of(MODELS[OPENRLHF.model], "mlp")


@pytest.fixture(scope="module")
def openrlhf(runs: Runs) -> Record:
    """The step of OpenRLHF."""
    return runs.of(OPENRLHF.name, RANKS)[0]


@pytest.fixture(scope="module")
def verl(runs: Runs) -> StepRecord:
    """The step of veRL, with the micro-batches that OpenRLHF has drawn."""
    recipe = CASE.recipe
    assert (recipe.model, recipe.batches) == (OPENRLHF.model, (OPENRLHF.batch,))
    assert recipe.beta == OPENRLHF.beta
    rows = [
        [row for micro_batch in record.rows for row in micro_batch]
        for record in runs.of(OPENRLHF.name, RANKS)
    ]
    folder = runs.folder / "verl"
    folder.mkdir()
    (folder / ROWS).write_text(json.dumps(rows))
    run_ranks("tests.openrlhf.verl_side", RANKS, folder)
    return first_step(folder)


def first_step(folder: Path) -> StepRecord:
    """Of the first rank."""
    step: StepRecord = torch.load(folder / "record0.pt", weights_only=False).steps[0]
    return step


@pytest.mark.parametrize("block", BLOCKS)
def test_every_layer_has_the_same_alpha(verl: StepRecord, openrlhf: Record, block: str) -> None:
    prefix = f"pcr/block/{block}"
    here, there = openrlhf.status, verl.metrics
    # There is no alpha without a conflict.
    in_conflict = here[f"{prefix}/cos"] < 0
    assert (there[f"{prefix}/cos"] < 0) == in_conflict
    assert here[f"{prefix}/cos"] == pytest.approx(there[f"{prefix}/cos"], abs=2 * TOLERANCE)
    if in_conflict:
        alpha = there[f"{prefix}/alpha"]
        assert here[f"{prefix}/alpha"] == pytest.approx(alpha, rel=2 * STATISTICS)


def test_there_are_layers_with_and_without_a_conflict(openrlhf: Record) -> None:
    in_conflict = {openrlhf.status[f"pcr/block/{block}/cos"] < 0 for block in BLOCKS}
    assert in_conflict == {True, False}


def test_the_combined_gradient_is_the_same(verl: StepRecord, openrlhf: Record) -> None:
    apart = difference(openrlhf.gradient(), verl.gradient)
    assert norm(apart) < 2 * TOLERANCE * norm(verl.gradient)


def test_the_micro_batches_are_the_same(verl: StepRecord, runs: Runs) -> None:
    sizes = [len(rows) for rows in runs.of(OPENRLHF.name, RANKS)[0].rows]
    assert [len(rows) for rows in verl.micro_batches[: len(sizes)]] == sizes
