"""The same command for Megatron-core, on a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.layouts import PASSES, RULES
from tests.benchmarks.test_actor_update import ROOT, SCOPE, TINY


def test_every_update_is_measured_and_one_forward_pass_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.megatron_update", "--out", str(tmp_path), *TINY],
        cwd=ROOT,
        env=os.environ | {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads((tmp_path / "benchmarks_megatron.json").read_text())["results"]
    assert {layout: list(rows) for layout, rows in results.items()} == {
        "megatron-passes": list(PASSES),
        "megatron": list(RULES),
    }
    assert "shown for fsdp2" in results["megatron-passes"].pop("shared_forward")["refused"]
    measured = [row for rows in results.values() for row in rows.values()]
    assert all(row["median"] > 0 and row["peak"] > 0 for row in measured)
    assert results["megatron-passes"]["two_forward"]["scope"] == SCOPE
    page = (tmp_path / "benchmarks_megatron.md").read_text()
    assert "Refused: shared_forward: pcr.passes='shared_forward' is not possible" in page
