"""PPO: the real `main_ppo` with GAE and a critic, whose engine stays veRL's own."""

import math
from pathlib import Path

import pytest

from tests.integration.small_run import Run, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ppo(folder: Path) -> Run:
    recipe = [
        "actor_rollout_ref.actor.update_rule=pcr",
        "algorithm.adv_estimator=gae",
        # With the value head that veRL adds, and with random weights of it.
        f"critic.model.path={folder}/model",
        "critic.strategy=fsdp2",
        "critic.ppo_micro_batch_size_per_gpu=4",
        "critic.optim.lr=1e-3",
    ]
    return run(folder, recipe)


def test_the_run_ends_well(ppo: Run) -> None:
    assert ppo.status == 0, ppo.output[-4000:]
    assert len(ppo.steps) == 2
    assert ppo.tracebacks() == []


def test_the_actor_has_two_gradients(ppo: Run) -> None:
    assert [step["actor/pcr/active"] for step in ppo.steps] == [1.0, 1.0]
    for step in ppo.steps:
        assert step["actor/pcr/norm_pla"] > 0
        assert 0 <= step["actor/pcr/conflict_rate"] <= 1


def test_the_critic_learns_with_its_own_engine(ppo: Run) -> None:
    for step in ppo.steps:
        assert 0 < step["critic/vf_loss"] < math.inf
        assert 0 < step["critic/grad_norm"] < math.inf
        assert not [key for key in step if key.startswith("critic/") and "pcr" in key]
    assert ppo.steps[-1]["critic/vf_loss"] != ppo.steps[0]["critic/vf_loss"]
