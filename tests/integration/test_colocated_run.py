"""The real `main_ppo` with veRL's `colocate_async` trainer: answers are one update old.

While the actor trains, prompts of the next step wait with the answers they have; after it vLLM
gets the new weights and goes on. The other asynchronous trainers need devices of their own.
"""

from pathlib import Path

import pytest

from tests.integration.small_run import Run, run

RECIPE = [
    "actor_rollout_ref.actor.update_rule=pcr",
    "trainer.v1.trainer_mode=colocate_async",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def colocated(folder: Path) -> Run:
    return run(folder, RECIPE)


def test_the_run_ends_well(colocated: Run) -> None:
    assert colocated.status == 0, colocated.output[-4000:]
    assert len(colocated.steps) == 2
    assert colocated.tracebacks() == []


def test_generation_was_ahead_of_the_updates(colocated: Run) -> None:
    key = "training/off_policy/trajectory_staleness_worst/max"
    assert [step[key] for step in colocated.steps] == [0, 1]


def test_every_update_was_that_of_the_rule(colocated: Run) -> None:
    for step in colocated.steps:
        assert step["actor/pcr/active"] == 1.0
        assert step["actor/pcr/degenerate_blocks"] == 0
        assert step["actor/pcr/norm_pla"] > 0
        assert step["actor/pcr/norm_sta"] > 0
