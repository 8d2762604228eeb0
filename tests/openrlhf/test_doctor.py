"""`pcr doctor` where OpenRLHF is installed, and where veRL is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.openrlhf.conftest import STAND_INS
from tests.support.forking import ROOT

Ended = dict[str, tuple[int, str]]


def start(python: Path, *search: Path) -> subprocess.Popen[str]:
    """The command in an environment.

    Args:
        python: its interpreter.
        *search: folders of modules before all others.
    """
    return subprocess.Popen(
        [str(python), "-m", "pcr_plugin.cli.main", "doctor"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *search))),
            "DS_ACCELERATOR": "cpu",
            "VERL_PLATFORM": "cpu",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture(scope="module")
def ended(openrlhf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Status and output of each, side by side: most of a command is imports."""
    folder = tmp_path_factory.mktemp("modules")
    described = folder / "deepspeed-0.20.0.dist-info" / "METADATA"
    described.parent.mkdir()
    described.write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 0.20.0\n")
    started = {
        "OpenRLHF": start(openrlhf_python, STAND_INS),
        # There is no flash-attn here.
        "without the stand-ins": start(openrlhf_python),
        "another DeepSpeed": start(openrlhf_python, folder, STAND_INS),
        "veRL": start(Path(sys.executable)),
    }
    found = {}
    for name, process in started.items():
        output, _ = process.communicate(timeout=600)
        found[name] = process.returncode, output
    return found


def test_openrlhf_without_verl_is_enough(ended: Ended) -> None:
    status, output = ended["OpenRLHF"]
    assert status == 0, output
    assert "openrlhf 0.11.2, deepspeed 0.19.6: the releases that PCR is tested" in output
    assert "every name that TwoGradientPolicyActor is built on" in output
    assert "python -m pcr_plugin.openrlhf" in output
    assert "[ok] veRL is not installed" in output
    assert "!!" not in output


def test_an_openrlhf_that_does_not_import_is_said(ended: Ended) -> None:
    status, output = ended["without the stand-ins"]
    assert status == 1
    assert "[!!] binding: No module named 'vllm'" in output
    assert "python -m openrlhf.cli.train_ppo_ray --help" in output


def test_another_release_of_deepspeed_is_said(ended: Ended) -> None:
    status, output = ended["another DeepSpeed"]
    assert status == 1
    assert "[!!] openrlhf 0.11.2, deepspeed 0.20.0: not the releases" in output
    assert "use openrlhf==0.11.2 deepspeed==0.19.6" in output


def test_verl_without_openrlhf_is_enough(ended: Ended) -> None:
    status, output = ended["veRL"]
    assert status == 0, output
    assert "veRL loads the plugin" in output
    assert "[ok] OpenRLHF is not installed" in output
    assert "!!" not in output
