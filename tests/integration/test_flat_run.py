"""The real `main_ppo` with veRL's default backend: FSDP1 with flat parameters, on two workers.

Several epochs and mini-batches a step, offloading, an entropy bonus, rollout correction, and
checkpoints. (A second start from them: to the last bit in `tests/distributed/test_resuming.py`,
through the trainer in `test_megatron_run.py`.)
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.saved_actor import actor, check_average
from tests.integration.small_run import Run, run

WORKERS = 2
# Two epochs over the two halves of the train batch.
STEPS_PER_TRAINING_STEP = 4
RECIPE = [
    "actor_rollout_ref.actor.update_rule=pcr",
    "actor_rollout_ref.actor.pcr.preset=robust",
    "actor_rollout_ref.actor.strategy=fsdp",
    "actor_rollout_ref.actor.ppo_epochs=2",
    "actor_rollout_ref.actor.fsdp_config.param_offload=True",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload=True",
    "actor_rollout_ref.actor.entropy_coeff=0.01",
    "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean",
    "algorithm.rollout_correction.rollout_is=token",
    "trainer.save_freq=1",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flat(folder: Path) -> Run:
    return run(folder, RECIPE, steps=2, workers=WORKERS)


def optimizer_steps(folder: Path, training_steps: int) -> set[int]:
    """What Adam itself has counted, over all ranks and parameters."""
    counted: set[int] = set()
    for rank in range(WORKERS):
        name = f"optim_world_size_{WORKERS}_rank_{rank}.pt"
        saved: dict[str, Any] = torch.load(actor(folder, training_steps) / name, weights_only=False)
        counted |= {int(state["step"]) for state in saved["state"].values()}
    return counted


def test_the_run_ends_well(flat: Run) -> None:
    assert flat.status == 0, flat.output[-4000:]
    assert len(flat.steps) == 2
    assert flat.tracebacks() == []
    assert "update_rule=pcr preset=robust" in flat.output
    assert "engine backend pcr:fsdp\n" in flat.output


def test_why_auto_takes_two_passes_is_logged(flat: Run) -> None:
    assert "passes=auto" in flat.output
    why = "actor_rollout_ref.actor.strategy=fsdp, and it is shown for fsdp2"
    assert f"passes=two_forward ({why})" in flat.output


@pytest.mark.parametrize("number", [0, 1])
def test_metrics_of_every_step(flat: Run, number: int) -> None:
    step = flat.steps[number]
    assert step["actor/pcr/active"] == 1.0
    assert step["actor/pcr/degenerate_blocks"] == 0
    assert 0 <= step["actor/pcr/conflict_rate"] <= 1
    assert -1 <= step["actor/pcr/cos"] <= 1
    # No number where no block was in conflict.
    assert 0 <= step.get("actor/pcr/alpha", 0.0) <= 1
    assert all(math.isfinite(step[key]) for key in step if key.startswith("actor/pcr/"))
    # veRL's loss is the sum of its three terms, whichever of our passes each came from.
    assert step["actor/loss"] == pytest.approx(
        step["actor/pg_loss"] - 0.01 * step["actor/entropy_loss"] + 0.05 * step["actor/kl_loss"],
        rel=1e-4,
        abs=1e-6,
    )
    # The flat parameters that were gathered from two offloaded shards are vLLM's weights.
    assert step["training/rollout_actor_probs_pearson_corr"] > 0.99


def test_there_are_two_gradients(flat: Run) -> None:
    for step in flat.steps:
        assert step["actor/pcr/norm_pla"] > 0
        assert step["actor/pcr/norm_sta"] > 0


def test_rollout_correction_weighs_the_tokens(flat: Run) -> None:
    """The actor's and vLLM's probabilities agree, so the weights are 1; here they exist."""
    for step in flat.steps:
        assert step["rollout_corr/rollout_is_mean"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("training_steps", [1, 2])
def test_every_mini_batch_of_every_epoch_is_one_step(
    folder: Path, flat: Run, training_steps: int
) -> None:
    assert flat.status == 0, flat.output[-4000:]
    assert optimizer_steps(folder, training_steps) == {STEPS_PER_TRAINING_STEP * training_steps}
    check_average(folder, training_steps, each=STEPS_PER_TRAINING_STEP)
