"""The report docs/openrlhf_upstream.md: what it says DeepSpeed does, without OpenRLHF and us."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.forking import ROOT

# float32; measured 1e-7.
EXACT = 1e-6


# Stage, place of the optimizer and way, to the error of the update.
Errors = dict[tuple[str, str, str], float]


@pytest.fixture(scope="module")
def errors(openrlhf_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """What the file prints, run away from this repository."""
    result = subprocess.run(
        [str(openrlhf_python), str(ROOT / "tests" / "openrlhf" / "lost_micro_batches.py")],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("stage ")]
    return {(stage, place, way): float(error) for _, stage, place, way, _, error in rows}


@pytest.mark.parametrize("place", ["-", "offloaded"])
@pytest.mark.parametrize("stage", ["1", "2"])
def test_micro_batches_are_lost(errors: Errors, stage: str, place: str) -> None:
    assert errors[stage, place, "as_is"] > 0.1


@pytest.mark.parametrize("place", ["-", "offloaded"])
@pytest.mark.parametrize("stage", ["1", "2", "3"])
@pytest.mark.parametrize("way", ["marked", "unmanaged"])
def test_nothing_is_lost_either_other_way(errors: Errors, stage: str, place: str, way: str) -> None:
    assert errors[stage, place, way] < EXACT


@pytest.mark.parametrize("place", ["-", "offloaded"])
def test_stage_3_loses_nothing(errors: Errors, place: str) -> None:
    assert errors["3", place, "as_is"] < EXACT


def test_the_report_has_what_is_printed(errors: Errors) -> None:
    report = (ROOT / "docs" / "openrlhf_upstream.md").read_text()
    shown = re.findall(r"^\| (\d) (offloaded)? ?\| (\S+) \| (\S+) \| (\S+) \|$", report, re.M)
    assert len(shown) == 6
    for stage, offloaded, *told in shown:
        for way, error in zip(("as_is", "marked", "unmanaged"), told, strict=True):
            found = errors[stage, offloaded or "-", way]
            # Rounding depends on the machine.
            assert float(error) == pytest.approx(found, rel=0.1, abs=EXACT), (stage, way)
