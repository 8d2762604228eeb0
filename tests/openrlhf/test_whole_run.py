"""OpenRLHF's command, whole: real Ray, policy, reference, controller, log and checkpoints."""

import json
import math
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.integration.small_run import stop_group
from tests.openrlhf.conftest import STAND_INS
from tests.support.forking import ROOT
from tests.support.tiny_model import MODELS, random_weights, save_checkpoint

# A run takes half a minute on two free cores.
_SECONDS = 600
_RULE = ("--actor.update_rule", "pcr")
RUNS = {
    "stock": (),
    "rule": _RULE,
    "rule on ZeRO-3": (*_RULE, "--ds.zero_stage", "3"),
}
WITH_RULE = [name for name, arguments in RUNS.items() if arguments]
# Of docs/metrics.md, in a step with a conflict in which nothing is made of halves.
METRICS = [
    *("active", "conflict_rate", "cos", "cos_final_sta", "alpha", "beta_eff", "norm_pla"),
    *("norm_sta", "norm_final", "var_pla", "var_sta", "snr_pla", "snr_sta", "removed"),
    *("degenerate_blocks", "seconds"),
]


@dataclass(frozen=True)
class Whole:
    """What a run has left: two steps on the log-probabilities of the policy and its reference.

    Attributes:
        steps: the controller's status after every step.
        actors: what every policy actor says of itself.
        logged: scalars in TensorBoard's files.
        checkpoints: folder of the last one.
    """

    steps: list[dict[str, float]]
    actors: list[dict[str, Any]]
    logged: set[str]
    checkpoints: Path


class WholeRuns:
    """Runs of the command, each once and when it is first asked for."""

    def __init__(self, folder: Path, python: Path) -> None:
        self._folder, self._python = folder, python
        save_checkpoint(MODELS["wide"], random_weights(MODELS["wide"], seed=1), folder / "model")
        self._start("prepare")
        self.of = cache(self._run)

    def _run(self, name: str) -> Whole:
        left = self._folder / name.replace(" ", "_")
        self._start(
            *("--ckpt.output_dir", f"{left}/model", "--ckpt.path", f"{left}/checkpoints"),
            *("--ckpt.save_steps", "1", "--logger.tensorboard_dir", f"{left}/log", *RUNS[name]),
        )
        seen = json.loads((left / "model" / "seen.json").read_text())
        (events,) = (left / "log").rglob("events.*")
        log = EventAccumulator(str(events)).Reload()
        return Whole(
            seen["steps"], seen["actors"], set(log.Tags()["scalars"]), left / "checkpoints"
        )

    def _start(self, *arguments: str) -> None:
        process = subprocess.Popen(
            [str(self._python), "-m", "tests.openrlhf.whole_run", str(self._folder), *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, STAND_INS))),
                "DS_ACCELERATOR": "cpu",
                "OMP_NUM_THREADS": "1",
                # The memory of the machine has nothing to do with what is tested.
                "RAY_memory_monitor_refresh_ms": "0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=_SECONDS)
        finally:
            stop_group(process.pid)
        assert process.returncode == 0, output[-6000:]


@pytest.fixture(scope="module")
def whole(openrlhf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> WholeRuns:
    """The command's runs."""
    return WholeRuns(tmp_path_factory.mktemp("whole"), openrlhf_python)


@pytest.mark.parametrize("name", WITH_RULE)
def test_the_flag_reaches_the_workers(whole: WholeRuns, name: str) -> None:
    actors = whole.of(name).actors
    assert len(actors) == 2
    for actor in actors:
        assert actor["actor"] == "pcr_plugin.openrlhf.worker.TwoGradientPolicyActor"
        assert actor["trainer"] == "TwoGradientTrainer"
        assert actor["strategy"] == "TwoGradientStrategy"
        assert (actor["ranks"], actor["stage"]) == (2, 3 if "ZeRO-3" in name else 2)
    assert actors[0]["weights"] == actors[1]["weights"]


def test_without_the_flag_the_workers_are_stock(whole: WholeRuns) -> None:
    stock = whole.of("stock")
    for actor in stock.actors:
        assert actor["actor"] == "openrlhf.trainer.ray.ppo_actor.PolicyModelActor"
        assert actor["trainer"] == "ActorPPOTrainer"
        assert actor["strategy"] == "DeepspeedStrategy"
    assert not [name for name in stock.logged if "pcr" in name]


@pytest.mark.parametrize("name", WITH_RULE)
def test_the_status_and_the_log_have_the_metrics(whole: WholeRuns, name: str) -> None:
    run = whole.of(name)
    for metric in METRICS:
        assert math.isfinite(run.steps[1][f"pcr/{metric}"]), metric
        assert f"train/pcr/{metric}" in run.logged


@pytest.mark.parametrize("name", WITH_RULE)
def test_stock_metrics_keep_their_names(whole: WholeRuns, name: str) -> None:
    for own, stock in zip(whole.of(name).steps, whole.of("stock").steps, strict=True):
        assert {key for key in own if not key.startswith("pcr/")} == set(stock)


@pytest.mark.parametrize("name", WITH_RULE)
def test_the_first_step_is_stock_and_the_second_is_not(whole: WholeRuns, name: str) -> None:
    """The policy is its own reference in the first: no KL gradient, so no conflict."""
    own, stock = whole.of(name).steps, whole.of("stock").steps
    assert own[0]["pcr/conflict_rate"] == 0
    assert own[0]["policy_loss"] == pytest.approx(stock[0]["policy_loss"], rel=1e-2)
    # bf16: stock adds up micro-batches in bf16, a rule in float32.
    assert own[0]["actor_grad_norm"] == pytest.approx(stock[0]["actor_grad_norm"], rel=1e-2)
    assert own[1]["pcr/conflict_rate"] > 0
    assert 0 < own[1]["pcr/alpha"] < 1
    differs = abs(own[1]["actor_grad_norm"] / stock[1]["actor_grad_norm"] - 1)
    assert differs > 1e-2


@pytest.mark.parametrize("name", RUNS)
def test_every_step_has_a_checkpoint(whole: WholeRuns, name: str) -> None:
    folder = whole.of(name).checkpoints / "_actor"
    assert (folder / "latest").read_text() == "global_step2"
    assert {path.name for path in folder.glob("global_step*")} == {"global_step1", "global_step2"}
