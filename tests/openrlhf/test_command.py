"""`python -m pcr_plugin.openrlhf`: help, refusals, and the rule in the workers of real Ray."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.inputs import Inputs
from tests.openrlhf.conftest import STAND_INS
from tests.support.forking import ROOT


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in OpenRLHF's environment."""
    path = os.pathsep.join(map(str, (ROOT, STAND_INS)))
    # Ray's memory monitor has nothing to do with what is tested.
    return subprocess.run(
        [str(python), "-m", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "RAY_memory_monitor_refresh_ms": "0",
        },
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


def test_help_shows_openrlhfs_keys_and_ours(openrlhf_python: Path) -> None:
    shown = run(openrlhf_python, "pcr_plugin.openrlhf", "--help")
    assert shown.returncode == 0, shown.stderr
    for key in ("--actor.model_name_or_path", "--actor.update_rule", "--actor.pcr.preset"):
        assert key in shown.stdout


def test_a_recipe_without_kl_loss_stops_before_ray(openrlhf_python: Path) -> None:
    stopped = run(openrlhf_python, "pcr_plugin.openrlhf", "--actor.update_rule", "pcr")
    assert stopped.returncode != 0
    assert "--algo.kl.use_loss=False is not possible" in stopped.stderr
    assert "Started a local Ray instance" not in stopped.stderr


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, openrlhf_python: Path) -> dict[str, Any]:
    """What the actors of two runs, with the flag and without, have said."""
    folder = tmp_path_factory.mktemp("command")
    Inputs.create(folder)
    result = run(openrlhf_python, "tests.openrlhf.command", str(folder))
    assert result.returncode == 0, result.stderr[-6000:]
    said: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return said


def test_the_flag_reaches_the_workers(found: dict[str, Any]) -> None:
    for actor in found["rule"]:
        assert actor["actor"] == "pcr_plugin.openrlhf.worker.TwoGradientPolicyActor"
        assert actor["trainer"] == "TwoGradientTrainer"
        assert actor["strategy"] == "TwoGradientStrategy"
        assert actor["status"]["pcr/active"] == 1.0
        assert 0 < actor["status"]["pcr/conflict_rate"] <= 1


def test_without_the_flag_the_workers_are_stock(found: dict[str, Any]) -> None:
    for actor in found["stock"]:
        assert actor["actor"].endswith("PolicyModelActor")
        assert "pcr_plugin" not in actor["actor"]
        assert actor["trainer"] == "ActorPPOTrainer"
        assert actor["strategy"] == "DeepspeedStrategy"
        assert not [name for name in actor["status"] if name.startswith("pcr/")]


def test_stock_metrics_keep_their_names(found: dict[str, Any]) -> None:
    for with_rule, stock in zip(found["rule"], found["stock"], strict=True):
        own = {name for name in with_rule["status"] if not name.startswith("pcr/")}
        assert own == set(stock["status"])
