"""The real `main_ppo` on Megatron-core, tensor-parallel over two workers: Ray, reference policy,
vLLM, weights through mbridge, a checkpoint, and a second start that goes on from it.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.saved_actor import LAYERS, actor, check_average
from tests.integration.small_megatron_run import run_megatron
from tests.integration.small_run import Run, checkpoints

# The two halves of the train batch.
STEPS_PER_TRAINING_STEP = 2
RULE = [
    "actor_rollout_ref.actor.update_rule=pcr",
    "actor_rollout_ref.actor.pcr.preset=robust",
    "actor_rollout_ref.actor.pcr.log_blocks=true",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def first(folder: Path) -> Run:
    return run_megatron(folder, [*RULE, "trainer.save_freq=2", "trainer.resume_mode=disable"])


@pytest.fixture(scope="module")
def resumed(folder: Path, first: Run) -> Run:
    """The same command again, which now finds a checkpoint, with one training step more."""
    assert first.status == 0, first.output[-4000:]
    more = [*RULE, "trainer.save_freq=1", "trainer.resume_mode=auto"]
    return run_megatron(folder, more, steps=3)


def check_metrics(step: dict[str, Any]) -> None:
    assert step["actor/pcr/active"] == 1.0
    assert step["actor/pcr/degenerate_blocks"] == 0
    assert step["actor/pcr/norm_pla"] > 0
    assert step["actor/pcr/norm_sta"] > 0
    assert step["actor/pcr/var_pla"] > 0
    assert -1 <= step["actor/pcr/cos"] <= 1
    blocks = [step[f"actor/pcr/block/{layer}.mlp/beta_eff"] for layer in range(LAYERS)]
    assert step["actor/pcr/beta_eff"] == pytest.approx(sum(blocks) / LAYERS)
    assert all(math.isfinite(step[key]) for key in step if key.startswith("actor/pcr/"))
    assert step["actor/loss"] == pytest.approx(
        step["actor/pg_loss"] + 0.05 * step["actor/kl_loss"], rel=1e-4, abs=1e-6
    )
    # The weights that vLLM samples from are the actor's, put together from both workers.
    assert step["training/rollout_actor_probs_pearson_corr"] > 0.99


def test_the_run_ends_well(first: Run) -> None:
    assert first.status == 0, first.output[-4000:]
    assert len(first.steps) == 2
    assert first.tracebacks() == []
    assert "engine backend pcr:megatron" in first.output


def test_the_reference_policy_has_the_stock_engine(first: Run) -> None:
    assert "the actor's engine is PCRCPUMegatronEngine" in first.output
    assert "the reference's engine is CPUMegatronEngine" in first.output


@pytest.mark.parametrize("step", [0, 1])
def test_metrics_of_every_step(first: Run, step: int) -> None:
    check_metrics(first.steps[step])


def test_the_checkpoint_has_the_weights_of_both_workers(folder: Path, first: Run) -> None:
    """In the names and shapes of the model that the run began with."""
    assert first.status == 0, first.output[-4000:]
    before = load_file(folder / "model" / "model.safetensors")
    after = load_file(actor(folder, 2) / "model" / "huggingface" / "model.safetensors")
    assert after.keys() == before.keys()
    for name, weight in before.items():
        assert after[name].shape == weight.shape
        assert not torch.equal(after[name], weight), name


def test_the_averages_are_beside_the_checkpoint(folder: Path, first: Run) -> None:
    assert first.status == 0, first.output[-4000:]
    check_average(folder, 2, each=STEPS_PER_TRAINING_STEP)


def test_a_second_start_goes_on_from_the_checkpoint(folder: Path, resumed: Run) -> None:
    assert resumed.status == 0, resumed.output[-4000:]
    assert f"Resuming from {checkpoints(folder)}/global_step_2" in resumed.output
    assert [step["training/global_step"] for step in resumed.steps] == [3]
    check_metrics(resumed.steps[0])
    check_average(folder, 3, each=STEPS_PER_TRAINING_STEP)


def test_what_is_refused_stops_the_run_before_a_worker_starts(folder: Path) -> None:
    key = "actor_rollout_ref.actor.megatron.use_megatron_fsdp"
    result = run_megatron(folder, [*RULE, f"{key}=True"])
    assert result.status != 0
    assert f"{key}=True" in result.output
    assert "set it to False" in result.output
    assert "ray init kwargs" not in result.output
