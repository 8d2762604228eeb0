"""A plugin that cannot load stops a real `main_ppo` run; it never trains plain GRPO instead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.copying import copy_source

ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable,
    "-m",
    "verl.trainer.main_ppo",
    "algorithm.adv_estimator=grpo",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "actor_rollout_ref.actor.use_kl_loss=True",
    "actor_rollout_ref.actor.kl_loss_type=k3+",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.actor.update_rule=pcr",
]

# file broken, by what, and what the user must read
BROKEN = {
    "the engine": (
        "pcr_plugin/verl/engine.py",
        "raise ImportError('libsomething.so: not found')",
        ["libsomething.so", "pcr doctor", "plain GRPO"],
    ),
    "the configuration": (
        "pcr_plugin/verl/refusals.py",
        "this is no Python",
        ["invalid syntax", "pcr doctor", "pcr_plugin.verl.actor_config"],
    ),
    "the Hydra plugin": (
        "hydra_plugins/pcr_plugin_config/source.py",
        "raise ImportError('no such Hydra')",
        # Hydra's own words: ours are not there.
        [
            "Error importing 'hydra_plugins.pcr_plugin_config'",
            "ImportError : no such Hydra",
            "Could not override 'actor_rollout_ref.actor.update_rule'",
        ],
    ),
    "a veRL without a name that we need": (
        "pcr_plugin/verl/host.py",
        None,
        ["verl.workers.utils.losses.moved_loss is missing", "pip install", "pcr doctor"],
    ),
}


@pytest.fixture
def copy_of_the_plugin(tmp_path: Path) -> Path:
    for package in ("pcr_plugin", "hydra_plugins"):
        copy_source(ROOT / package, tmp_path / package)
    return tmp_path


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_stops_the_driver_before_ray(what: str, copy_of_the_plugin: Path) -> None:
    file, line, expected = BROKEN[what]
    source = (copy_of_the_plugin / file).read_text()
    changed = f"{line}\n{source}" if line else source.replace('"ppo_loss",', '"moved_loss",')
    assert changed != source
    (copy_of_the_plugin / file).write_text(changed)
    run = subprocess.run(
        COMMAND,
        cwd=copy_of_the_plugin,
        env={**os.environ, "PYTHONPATH": str(copy_of_the_plugin)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    output = run.stdout + run.stderr
    assert run.returncode != 0
    for words in expected:
        assert words in output
    # veRL's last words before `ray.init`.
    assert "ray init kwargs" not in output


def test_the_same_command_gets_past_us_with_an_intact_copy(copy_of_the_plugin: Path) -> None:
    """Otherwise the tests above could pass for any reason."""
    run = subprocess.run(
        COMMAND,
        cwd=copy_of_the_plugin,
        env={**os.environ, "PYTHONPATH": str(copy_of_the_plugin)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = run.stdout + run.stderr
    assert "update_rule=pcr preset=paper" in output
    assert "engine backend pcr:fsdp2" in output
    assert "log_prob_micro_batch_size_per_gpu" in output  # what the recipe lacks, says veRL
