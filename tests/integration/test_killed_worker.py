"""A worker is killed between its two gradients and its step, then the disk is full."""

import json
import os
from pathlib import Path

import pytest

from tests.integration.small_run import Run, checkpoints, run
from tests.support.copying import copy_source

ROOT = Path(__file__).parents[2]
# Every training step is two optimizer steps, and is saved.
RULE = [
    "actor_rollout_ref.actor.update_rule=pcr",
    "actor_rollout_ref.actor.pcr.preset=robust",
    "trainer.save_freq=1",
    "trainer.resume_mode=auto",
]
PASSES = "        pair = passes(beta)\n"
KILL = """        type(self).calls = getattr(type(self), "calls", 0) + 1
        if type(self).calls == 4:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
"""

OPTIMIZER = "optim_world_size_1_rank_0.pt"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def killed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose worker ends itself in the second half of the second training step."""
    place = tmp_path_factory.mktemp("plugin")
    for package in ("pcr_plugin", "hydra_plugins"):
        copy_source(ROOT / package, place / package)
    update = place / "pcr_plugin" / "update.py"
    text = update.read_text()
    assert text.count(PASSES) == 1
    update.write_text(text.replace(PASSES, PASSES + KILL))
    return run(folder, RULE, steps=2, PYTHONPATH=f"{place}{os.pathsep}{ROOT}")


def test_the_run_ends_and_says_that_a_worker_died(killed: Run) -> None:
    assert killed.status != 0
    assert len(killed.steps) == 1
    assert "ActorDiedError" in killed.output


def test_what_was_saved_before_is_whole(folder: Path, killed: Run) -> None:
    saved = checkpoints(folder)
    assert (saved / "latest_checkpointed_iteration.txt").read_text() == "1"
    [state] = saved.glob("global_step_*/actor/**/pcr_state.json")
    assert json.loads(state.read_text())["steps"] == 2


@pytest.fixture(scope="module")
def full(folder: Path, killed: Run) -> Run:
    """The same command, which finds no space when it saves the second training step."""
    # Linux's own disk without space, where veRL is to write.
    saved = checkpoints(folder) / "global_step_2" / "actor" / OPTIMIZER
    saved.parent.mkdir(parents=True)
    saved.symlink_to("/dev/full")
    return run(folder, RULE, steps=2)


def test_a_full_disk_ends_the_run(full: Run) -> None:
    assert full.status != 0
    assert "Found checkpoint" in full.output
    # torch has no better word for it.
    assert "torch.save(optimizer_state_dict, optim_path)" in full.output
    assert "RuntimeError: [enforce fail at inline_container.cc" in full.output


def test_the_checkpoint_before_it_stays_the_one_to_go_on_from(folder: Path, full: Run) -> None:
    saved = checkpoints(folder)
    assert (saved / "latest_checkpointed_iteration.txt").read_text() == "1"
    [state] = saved.glob("global_step_*/actor/**/pcr_state.json")
    assert state.is_relative_to(saved / "global_step_1")


def test_the_same_command_goes_on_once_there_is_space(folder: Path, full: Run) -> None:
    (checkpoints(folder) / "global_step_2" / "actor" / OPTIMIZER).unlink()
    resumed = run(folder, RULE, steps=2)
    assert resumed.status == 0, resumed.output[-4000:]
    [step] = resumed.steps
    assert step["training/global_step"] == 2
    assert step["actor/pcr/active"] == 1.0
    assert "Found checkpoint" in resumed.output
    state = next(checkpoints(folder).glob("global_step_2/actor/**/pcr_state.json"))
    # The averages and the seed of random probes went on.
    assert json.loads(state.read_text())["steps"] == 4
