"""`pcr doctor` where OpenRLHF is installed, and where veRL is."""

import os
import subprocess
import sys
from pathlib import Path

from tests.openrlhf.conftest import STAND_INS
from tests.support.forking import ROOT


def doctor(python: Path, *search: Path) -> subprocess.CompletedProcess[str]:
    """The command in an environment.

    Args:
        python: its interpreter.
        *search: folders of modules before all others.
    """
    return subprocess.run(
        [str(python), "-m", "pcr_plugin.cli.main", "doctor"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *search))),
            "DS_ACCELERATOR": "cpu",
            "VERL_PLATFORM": "cpu",
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_openrlhf_without_verl_is_enough(openrlhf_python: Path) -> None:
    result = doctor(openrlhf_python, STAND_INS)
    assert result.returncode == 0, result.stdout
    assert "openrlhf 0.11.2, deepspeed 0.19.6: the releases that PCR is tested" in result.stdout
    assert "every name that TwoGradientPolicyActor is built on" in result.stdout
    assert "python -m pcr_plugin.openrlhf" in result.stdout
    assert "[ok] veRL is not installed" in result.stdout
    assert "!!" not in result.stdout


def test_an_openrlhf_that_does_not_import_is_said(openrlhf_python: Path) -> None:
    """Without the stand-ins there is no flash-attn here."""
    result = doctor(openrlhf_python)
    assert result.returncode == 1
    assert "[!!] binding: No module named 'vllm'" in result.stdout
    assert "python -m openrlhf.cli.train_ppo_ray --help" in result.stdout


def test_another_release_of_deepspeed_is_said(openrlhf_python: Path, tmp_path: Path) -> None:
    described = tmp_path / "deepspeed-0.20.0.dist-info" / "METADATA"
    described.parent.mkdir()
    described.write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 0.20.0\n")
    result = doctor(openrlhf_python, tmp_path, STAND_INS)
    assert result.returncode == 1
    assert "[!!] openrlhf 0.11.2, deepspeed 0.20.0: not the releases" in result.stdout
    assert "use openrlhf==0.11.2 deepspeed==0.19.6" in result.stdout


def test_verl_without_openrlhf_is_enough() -> None:
    result = doctor(Path(sys.executable))
    assert result.returncode == 0, result.stdout
    assert "veRL loads the plugin" in result.stdout
    assert "[ok] OpenRLHF is not installed" in result.stdout
    assert "!!" not in result.stdout
