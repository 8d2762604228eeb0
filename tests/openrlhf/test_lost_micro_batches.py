"""The report docs/openrlhf_upstream.md: what it says DeepSpeed does, without OpenRLHF and us."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.forking import ROOT

# float32; measured 1e-7.
EXACT = 1e-6


@pytest.fixture(scope="module")
def errors(openrlhf_python: Path) -> dict[tuple[str, str], float]:
    """Stage and whether the last micro-batch is marked, to the error of the update."""
    result = subprocess.run(
        [str(openrlhf_python), "-m", "tests.openrlhf.lost_micro_batches"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("stage ")]
    return {(stage, marked): float(error) for _, stage, _, marked, _, error in rows}


@pytest.mark.parametrize("stage", ["1", "2"])
def test_all_but_the_last_micro_batch_are_lost(
    errors: dict[tuple[str, str], float], stage: str
) -> None:
    assert errors[stage, "False"] > 0.1


@pytest.mark.parametrize("stage", ["1", "2", "3"])
def test_nothing_is_lost_where_the_last_one_is_marked(
    errors: dict[tuple[str, str], float], stage: str
) -> None:
    assert errors[stage, "True"] < EXACT


def test_stage_3_loses_nothing(errors: dict[tuple[str, str], float]) -> None:
    assert errors["3", "False"] < EXACT
