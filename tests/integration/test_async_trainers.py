"""veRL's trainers, the asynchronous ones too: the key reaches the engine, mistakes the driver.

Those that generate on devices of their own need a weight transfer between accelerators, so no
whole run of them is possible here; the actor's worker that they start is.
"""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from verl.experimental.fully_async_policy.detach_utils import MetricsAggregator
from verl.experimental.fully_async_policy.fully_async_trainer import FullyAsyncTrainer
from verl.experimental.one_step_off_policy.ray_trainer import OneStepOffRayTrainer
from verl.experimental.separation.engine_workers import DetachActorWorker
from verl.experimental.separation.utils import create_role_worker_mapping
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1 import PPOTrainer, get_trainer_cls
from verl.trainer.ppo.v1.utils import MetricsAggregator as MetricsAggregatorV1
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.engine import EngineRegistry
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from pcr_plugin.verl.engine import TwoGradientEngine
from pcr_plugin.verl.in_driver import CheckInDriver, refusal
from tests.integration.detached_actor import RULES
from tests.integration.entry_points import ENTRY_POINTS
from tests.integration.recipes import ACTOR, RECIPE
from tests.integration.refused_settings import PCR, RULE
from tests.integration.small_run import prepare

ANY = ("pcr:fsdp2", "pcr:megatron")
# Their main functions leave it to a task or a worker to look at the actor's configuration; what
# `main_ppo` refuses is in `test_refusals.py`.
CHECK_LITTLE = ("fully async", "fully async, Megatron", "one step off")
# What is typed: how the message begins, and with which backends it is a mistake.
MISTAKES = {
    f"{ACTOR}.kl_loss_type=kl": (f"{ACTOR}.kl_loss_type='kl'", ANY),
    "algorithm.use_kl_in_reward=True": ("algorithm.use_kl_in_reward=True", ANY),
    f"{ACTOR}.use_kl_loss=False": (f"{ACTOR}.use_kl_loss=False", ANY),
    f"{ACTOR}.strategy=automodel": (f"{ACTOR}.strategy='automodel'", ANY),
    f"{PCR}.gate=maybe": ("pcr.gate='maybe'", ANY),
    # What only the size of the run and the model's part show.
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=8": (f"{ACTOR}.ppo_micro_batch_size_per_gpu=8", ANY),
    "actor_rollout_ref.model.lora.rank=8": ("actor_rollout_ref.model.lora.rank=8", ANY[1:]),
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_actor_is_on_an_engine_of_ours(name: str) -> None:
    entry = ENTRY_POINTS[name]
    config = entry.composed([RULE])
    OmegaConf.resolve(config)  # the trainers do so before they hand it to the workers
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.engine.strategy == entry.backend
    assert actor.engine.update_rule.name == "pcr"
    engines = EngineRegistry._engines["language_model"]
    stock = engines[entry.backend.removeprefix("pcr:")]
    assert stock
    for device, engine in stock.items():
        ours = engines[entry.backend][device]
        assert issubclass(ours, TwoGradientEngine)
        assert issubclass(ours, engine)


@pytest.mark.parametrize(
    "name", [name for name in ENTRY_POINTS if "async" in name or "off" in name]
)
def test_the_reference_policy_is_there_and_stock(name: str) -> None:
    config = ENTRY_POINTS[name].composed([RULE])
    mapping, _ = create_role_worker_mapping(config)
    assert {Role.Actor, Role.RefPolicy} <= mapping.keys()
    assert "update_rule" not in config.actor_rollout_ref.ref


def test_no_trainer_updates_the_actor_in_a_way_of_its_own() -> None:
    """One path from all of them to `TrainingWorker.train_batch`, which has the engine do it."""
    for mode in ("sync", "colocate_async", "separate_async"):
        assert get_trainer_cls(mode)._update_actor is PPOTrainer._update_actor
    for trainer in (FullyAsyncTrainer.__ray_metadata__.modified_class, OneStepOffRayTrainer):
        # Ray wraps the methods of an actor's class.
        ran = inspect.unwrap(trainer._update_actor).__code__
        assert ran is RayPPOTrainer._update_actor.__code__
    for name in ("update_actor", "init_model", "set_loss_fn"):
        assert getattr(DetachActorWorker, name) is getattr(ActorRolloutRefWorker, name)
    assert DetachActorWorker.actor_worker_cls is TrainingWorker


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_driver_refuses_whatever_the_entry_point_checks(mistake: str) -> None:
    named, backends = MISTAKES[mistake]
    for name in CHECK_LITTLE:
        entry = ENTRY_POINTS[name]
        if entry.backend in backends:
            message = refusal(entry.composed([RULE, mistake])) or "not refused"
            assert message.startswith(f"{named} is not possible: ")


@pytest.mark.parametrize("name", CHECK_LITTLE)
def test_without_a_mistake_or_a_rule_the_driver_goes_on(name: str) -> None:
    """Otherwise it could refuse for any reason."""
    assert refusal(ENTRY_POINTS[name].composed([RULE])) is None
    assert refusal(ENTRY_POINTS[name].composed([f"{ACTOR}.kl_loss_type=kl"])) is None


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_hydra_calls_the_check_before_the_main_function(name: str) -> None:
    """Hydra turns a callback's errors into warnings, but not this one."""
    good, bad = (
        ENTRY_POINTS[name].composed([RULE, f"{ACTOR}.kl_loss_type={kind}"], with_hydra=True)
        for kind in ("k3+", "kl")
    )
    check = instantiate(good.hydra.callbacks.pcr_plugin)
    assert type(check) is CheckInDriver
    check.on_job_start(good, task_function=print)
    with pytest.raises(SystemExit, match="kl_loss_type='kl' is not possible"):
        check.on_job_start(bad, task_function=print)


def test_what_verl_itself_refuses_is_left_to_it() -> None:
    config = ENTRY_POINTS["sync"].composed([RULE, f"{ACTOR}.loss_agg_mode=no-such-mean"])
    assert refusal(config) is None


def test_the_real_fully_asynchronous_command_stops_before_ray(tmp_path: Path) -> None:
    """Its main function checks nothing by itself."""
    entry = ENTRY_POINTS["fully async"]
    run = subprocess.run(
        [
            *(sys.executable, "-m", entry.module, *RECIPE, *entry.overrides, RULE),
            f"{ACTOR}.kl_loss_type=kl",
            f"hydra.run.dir={tmp_path}",
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    output = run.stdout + run.stderr
    assert run.returncode == 1, output
    assert f"{ACTOR}.kl_loss_type='kl' is not possible" in output
    assert "ray init kwargs" not in output


@pytest.fixture(scope="module")
def detached(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, dict[str, Any]]:
    """What the worker of the fully asynchronous trainer did under every rule."""
    folder = tmp_path_factory.mktemp("detached")
    prepare(folder)
    command = [sys.executable, "-m", "tests.integration.detached_actor", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    result: dict[str | None, dict[str, Any]] = torch.load(folder / "records.pt", weights_only=False)
    return result


def test_the_detached_worker_has_our_engine_for_a_rule_alone(detached: Any) -> None:
    assert {rule: record["engine"] for rule, record in detached.items()} == {
        rule: f"{'PCR' if rule else ''}FSDPEngineWithLMHead" for rule in RULES
    }


def test_its_updates_have_two_gradients(detached: Any) -> None:
    for metrics in detached["pcr"]["metrics"]:
        assert set(metrics["pcr/active"]) == {1.0}
        assert set(metrics["pcr/degenerate_blocks"]) == {0.0}
        assert min(metrics["pcr/conflict_rate"] + metrics["pcr/alpha"]) > 0
    assert not any(key.startswith("pcr/") for key in detached[None]["metrics"][0])


def test_weights_kept_on_the_host_come_back_between_updates(detached: Any) -> None:
    """Decoupled PPO: log-probabilities of the policy that the last synchronisation sent out."""
    for record in detached.values():
        torch.testing.assert_close(record["restored"], record["first"], rtol=0, atol=0)
        assert not torch.equal(record["current"], record["first"])


def test_the_worker_s_sum_is_the_stock_update(detached: Any) -> None:
    # Adam divides a gradient by its own size, so that rounding counts where it is near zero.
    torch.testing.assert_close(
        detached["sum"]["weights"], detached[None]["weights"], rtol=0, atol=1e-5
    )
    difference = detached["pcr"]["weights"] - detached[None]["weights"]
    assert difference.abs().max() > 1e-4, "otherwise the rule did nothing"


def test_every_metric_of_ours_is_averaged_over_the_updates_of_a_synchronisation(
    detached: Any,
) -> None:
    """veRL's aggregators go by parts of a name: min, max, sum, total and others."""
    names = [f"actor/{key}" for key in detached["pcr"]["metrics"][0] if key.startswith("pcr/")]
    assert len(names) > 10
    for name in names:
        assert MetricsAggregator(total_gpus=1)._get_aggregation_type(name) == "avg"
        assert MetricsAggregatorV1()._get_aggregation_type(name) == "weighted_avg"
