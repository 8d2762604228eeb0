"""The command behind docs/benchmarks.md, on a tiny model."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.actor_update import main, parser, workload_of
from benchmarks.layouts import GPU_LAYOUTS, LAYOUTS, VARIANTS
from benchmarks.shapes import SHAPES

ROOT = Path(__file__).parents[2]
TINY = shlex.split(
    "--width 64 --layers 2 --vocabulary 128 --sequences 4 --prompt 4 --response 8 "
    "--micro-batches 2 --repeats 1"
)
SHOWN = ("passes", "passes-checkpointing", "peers")
# One gradient in the scope: gate, up and down of two layers, in float32.
SCOPE = 2 * 3 * 64 * 176 * 4
ALL = SCOPE + 4 * (2 * 128 * 64 + 64 + 2 * (64 * 64 * 2 + 64 * 16 * 2 + 64 + 16 * 2 + 2 * 64))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.actor_update", *words]
    environment = os.environ | {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command has written."""
    place = tmp_path_factory.mktemp("benchmarks")
    done = run("--out", str(place), *TINY, "--layouts", *SHOWN)
    assert done.returncode == 0, done.stderr[-4000:]
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, dict[str, Any]]:
    report: dict[str, Any] = json.loads((folder / "benchmarks.json").read_text())
    found: dict[str, dict[str, Any]] = report["results"]
    return found


@pytest.mark.parametrize("layout", SHOWN)
def test_every_update_is_measured(results: dict[str, dict[str, Any]], layout: str) -> None:
    assert list(results[layout]) == list(LAYOUTS[layout].variants)
    for name, row in results[layout].items():
        assert row["seconds"] == [pytest.approx(row["median"], abs=1e-4)], name
        assert row["median"] > 0
        assert row["peak"] > 0


def test_no_memory_is_left_unseen(results: dict[str, dict[str, Any]]) -> None:
    """On one rank the profiler sees every end, so the peak is exact."""
    for layout in SHOWN:
        for name, row in results[layout].items():
            # Gradients end with the update; metrics and an average of few numbers may stay.
            assert row["unseen"] < 0.01 * SCOPE, name


def test_peak_of_two_passes_is_one_gradient_of_the_scope_higher(
    results: dict[str, dict[str, Any]],
) -> None:
    for layout in ("passes-checkpointing", "passes"):
        rows = results[layout]
        assert rows["two_forward"]["scope"] == SCOPE
        over = rows["two_forward"]["peak"] - rows["stock"]["peak"]
        # Where a graph is at its largest, other gradients are not there yet.
        assert 0.5 * SCOPE < over < 2 * SCOPE
    peers = results["peers"]
    assert peers["two_forward, one block"]["scope"] == ALL


def test_peers_hold_whole_gradients(results: dict[str, dict[str, Any]]) -> None:
    peers = results["peers"]
    for name, least in (("TorchJD, backward", 2), ("Pytorch-PCGrad style", 3)):
        assert peers[name]["peak"] - peers["plain torch"]["peak"] > (least - 1) * ALL, name


def test_parts_of_every_update(results: dict[str, dict[str, Any]]) -> None:
    for layout in SHOWN:
        for name, row in results[layout].items():
            parts = row["parts"]
            assert {"forward", "clip and step", "rest"} < set(parts), name
            assert all(seconds > 0 for seconds in parts.values())
            ours = VARIANTS[name].rule is not None
            assert (
                {"backward of s", "backward of p", "statistics", "combine"} <= set(parts)
            ) == ours
            # Of the surrogate alone, down to the model's output: is there any gradient?
            settings = VARIANTS[name].settings
            looks = settings.get("passes") == "shared_forward" and "combine_signals" not in settings
            assert ("backward" in parts) == (looks or not ours)
            assert ("recomputation" in parts) == ("checkpointing" in layout)


def test_page_has_every_update_and_empty_rows_for_a_gpu(folder: Path) -> None:
    text = (folder / "benchmarks.md").read_text()
    for layout in SHOWN:
        for name in LAYOUTS[layout].variants:
            assert f"\n| {name} | " in text
    assert "no CUDA machine was at hand" in text
    for layout in GPU_LAYOUTS:
        assert f"\n| qwen2.5-0.5b, {layout} | | | | |" in text


def test_a_gpu_that_is_not_there_is_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--device", "cuda", "--model", "qwen2.5-0.5b", "--out", str(tmp_path)])
    assert "torch finds no CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_shape_and_what_is_said_beside_it() -> None:
    words = ["--model", "qwen2.5-1.5b", "--layers", "3", "--device", "cuda"]
    given = parser(GPU_LAYOUTS, device="cuda").parse_args(words)
    workload = workload_of(given)
    shape = SHAPES["qwen2.5-1.5b"]
    assert (workload.width, workload.mlp, workload.heads) == (shape.width, shape.mlp, shape.heads)
    assert (workload.layers, workload.tied) == (3, True)
    assert given.layouts == list(GPU_LAYOUTS)


def test_layouts_have_a_thousand_tokens_in_a_micro_batch() -> None:
    for name in ("passes", "passes-checkpointing", "passes-wide", "peers"):
        changes = LAYOUTS[name].changes
        shortest = changes["prompt"] + changes["response"] // 2
        assert shortest * changes["sequences"] // changes["micro_batches"] >= 1024
