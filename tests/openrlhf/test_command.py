"""`python -m pcr_plugin.openrlhf`: help and refusals."""

import os
import subprocess
from pathlib import Path

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
        timeout=900,
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
