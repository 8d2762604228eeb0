"""`python -m pcr_plugin.openrlhf`: help, refusals, and the launch script."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.openrlhf.conftest import STAND_INS
from tests.support.forking import ROOT

SCRIPT = ROOT / "examples" / "openrlhf" / "train.sh"


def start(command: list[str], **variables: str) -> subprocess.Popen[str]:
    """A command in OpenRLHF's environment."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, STAND_INS))),
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            # Ray's memory monitor has nothing to do with what is tested.
            "RAY_memory_monitor_refresh_ms": "0",
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def ended(
    openrlhf_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.CompletedProcess[str]]:
    """The commands, side by side: most of each is imports."""
    folder = tmp_path_factory.mktemp("programs")
    python = folder / "python"
    # The script's `python -m pcr_plugin.openrlhf`, up to the engines.
    python.write_text(
        f'#!/usr/bin/env bash\n[ "$1 $2" = "-m pcr_plugin.openrlhf" ] || exit 3\nshift 2\n'
        f'exec {openrlhf_python} -m tests.openrlhf.dry_run "$@"\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    ours = [str(openrlhf_python), "-m", "pcr_plugin.openrlhf"]
    started = {
        "help": start([*ours, "--help"]),
        "no KL loss": start([*ours, "--actor.update_rule", "pcr"]),
        "script": start(
            ["bash", str(SCRIPT), "--train.seed", "7"],
            PATH=os.pathsep.join((str(folder), os.environ["PATH"])),
            MODEL="some/model",
            PROMPTS="some/prompts",
            REWARD="http://some/reward",
        ),
    }
    found = {}
    for name, process in started.items():
        out, errors = process.communicate(timeout=900)
        found[name] = subprocess.CompletedProcess(process.args, process.returncode, out, errors)
    return found


def test_help_shows_openrlhfs_keys_and_ours(
    ended: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    shown = ended["help"]
    assert shown.returncode == 0, shown.stderr
    for key in ("--actor.model_name_or_path", "--actor.update_rule", "--actor.pcr.preset"):
        assert key in shown.stdout


def test_a_recipe_without_kl_loss_stops_before_ray(
    ended: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    stopped = ended["no KL loss"]
    assert stopped.returncode != 0
    assert "--algo.kl.use_loss=False is not possible" in stopped.stderr
    # `train`, which starts Ray, is not on the way.
    assert "in _choose_actor" in stopped.stderr
    assert "in train\n" not in stopped.stderr


def test_the_launch_script_fits_a_node(
    ended: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    """OpenRLHF's own checks of it, and 8 GPUs; further arguments are passed on."""
    shown = ended["script"]
    assert shown.returncode == 0, shown.stderr[-4000:]
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("asked ")]
    asked = json.loads(line.removeprefix("asked "))
    shared = {"gpus": 4, "shared": True}
    assert asked == {
        "engines": 4,
        "TwoGradientPolicyActor": shared,
        "ReferenceModelActor": shared,
    }


@pytest.mark.parametrize("missing", ["MODEL", "PROMPTS", "REWARD"])
def test_the_launch_script_asks_for_what_it_needs(missing: str) -> None:
    given = {name: "x" for name in ("MODEL", "PROMPTS", "REWARD") if name != missing}
    stopped = subprocess.run(
        ["bash", str(SCRIPT)],
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert stopped.returncode != 0
    assert missing in stopped.stderr
