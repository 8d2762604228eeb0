"""The study, small: its runs are logged whole, are not repeated, and follow from their seed."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from examples.study import design, jobs
from examples.study.__main__ import main
from examples.study.progress import Progress
from examples.study.recipe import Point
from examples.study.sweep import Job, sweep
from pcr_plugin.cli.main import main as pcr

ROOT = Path(__file__).parents[2]
POINTS = design.small().points
STEPS = design.small().sizes.steps
# What depends on the machine and its other work.
TIMES = re.compile(r"timing|perf/|pcr/seconds|actor/mfu")


def study(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.study", "--small", "--out", str(folder), *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        timeout=900,
        check=False,
    )


def test_make_study_is_that_command() -> None:
    for words, expected in ((["SMALL=1"], "-m examples.study --small"), ([], "-m examples.study")):
        told = subprocess.run(
            ["make", "--no-print-directory", "--dry-run", "study", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert told.stdout.rstrip().endswith(expected), told.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the whole small study."""
    made = tmp_path_factory.mktemp("study")
    result = study(made)
    assert result.returncode == 0, result.stderr
    assert "2 runs, 0 finished before" in result.stderr
    return made


def run_folder(folder: Path, point: Point) -> Path:
    return folder / "small" / "engine" / jobs.name_of(point)


def log_of(run: Path) -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["data"] for line in lines}


def test_every_step_and_every_measurement_is_logged(folder: Path) -> None:
    for point in POINTS:
        log = log_of(run_folder(folder, point))
        assert list(log) == [*range(STEPS + 1)]
        for step, data in log.items():
            assert all(math.isfinite(value) for value in data.values()), data
            if step:
                assert 0 <= data["critic/rewards/mean"] <= 1
                assert data["actor/grad_norm"] > 0
                assert data["actor/kl_coef"] == point.beta
                assert data["actor/lr"] == point.rate
            if step % 2 == 0:
                assert 0 <= data["val-core/chain_sum/acc/mean@1"] <= 1
                assert 0 <= data["val-core/products/acc/mean@1"] <= 1
                assert data["study/perplexity"] > 1
                assert 0 <= data["study/skill"] <= 1
                assert data["study/kl_text"] >= 0


def test_at_step_0_all_runs_are_the_start(folder: Path) -> None:
    first, *others = (log_of(run_folder(folder, point))[0] for point in POINTS)
    [about] = (folder / "small" / "starts").glob("*/about.json")
    assert first["study/perplexity"] == pytest.approx(json.loads(about.read_text())["perplexity"])
    assert first["study/kl_text"] == first["study/kl_answers"] == 0
    assert all(other == first for other in others)


def test_the_actor_is_trained_and_its_weights_reach_the_sampler(folder: Path) -> None:
    for point in POINTS:
        log = log_of(run_folder(folder, point))
        assert log[STEPS]["study/kl_text"] > log[2]["study/kl_text"] > 0
        # The KL to the reference is 0 where nothing has been learnt yet, which is to say that the
        # reference worker and the actor's start agree.
        assert log[1]["actor/kl_loss"] == pytest.approx(0, abs=1e-9)
        assert log[STEPS]["actor/kl_loss"] > 0
        assert log[STEPS]["actor/ppo_kl"] == pytest.approx(0, abs=1e-6)


def test_blocks_of_both_kinds_are_logged_under_a_rule(folder: Path) -> None:
    stock, rule = (log_of(run_folder(folder, point)) for point in POINTS)
    for part in ("mlp", "self_attn"):
        assert f"actor/pcr/block/0.{part}/cos" in rule[STEPS]
    assert {"actor/pcr/norm_pla", "actor/pcr/norm_sta", "actor/pcr/norm_final"} <= rule[2].keys()
    assert not [key for key in stock[STEPS] if "/pcr/" in key]


def test_a_second_call_repeats_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    result = study(folder)
    assert result.returncode == 0
    assert "2 runs, 2 finished before" in result.stderr
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def test_an_interrupted_run_starts_anew_and_gives_the_same_log(folder: Path) -> None:
    run = run_folder(folder, POINTS[1])
    before = log_of(run)
    (run / "done.json").unlink()
    result = study(folder)
    assert "2 runs, 1 finished before" in result.stderr
    after = log_of(run)
    for step, data in before.items():
        assert {k: v for k, v in data.items() if not TIMES.search(k)} == {
            k: v for k, v in after[step].items() if not TIMES.search(k)
        }


def test_plot_reads_the_runs(folder: Path, tmp_path: Path) -> None:
    runs = folder / "small" / "engine"
    assert pcr(["plot", str(runs), "--out", str(tmp_path / "plots")]) == 0
    names = {path.stem for path in (tmp_path / "plots").glob("*.png")}
    assert {"progress", "front", "cosines", "gradient_norms"} <= names
    report = (tmp_path / "plots" / "report.html").read_text()
    assert "stock" in report
    assert "robust" in report


@pytest.fixture(autouse=True, scope="module")
def no_server_stays() -> Iterator[None]:
    """That of the sweeps in this process has imported nothing; other tests need one that has."""
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def succeed(path: Path) -> None:
    path.write_text("done")


def fail() -> None:
    raise ValueError("no such rule")


def wait(path: Path) -> None:
    new = path.with_name("new")
    new.write_text(str(os.getpid()))
    new.rename(path)  # whoever sees it can read it
    time.sleep(600)


def new_job(folder: Path, name: str, work: Any, *arguments: Any) -> Job:
    return Job(folder / name, {"name": name}, work, arguments)


def test_a_run_that_fails_is_reported_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = new_job(tmp_path, "good", succeed, tmp_path / "file")
    failed = sweep([new_job(tmp_path, "bad", fail), good], 1, [], Progress())
    assert [each.job.folder.name for each in failed] == ["bad"]
    assert failed[0].reason == "ValueError: no such rule"
    assert good.finished()
    shown = capsys.readouterr().err
    assert "[1/2, 1 failed, " in shown
    assert "left] bad: FAILED, ValueError: no such rule" in shown


@contextmanager
def signalled(number: int, once: Path) -> Iterator[None]:
    """This process gets the signal when there is such a file."""
    over = threading.Event()

    def send() -> None:
        while not once.exists():
            if over.wait(0.1):
                return
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    # Whoever runs the tests in the background may have it ignored.
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        yield
    finally:
        signal.signal(signal.SIGINT, kept)
        over.set()
        thread.join()


def test_ctrl_c_ends_what_runs_and_leaves_it_to_be_done(tmp_path: Path) -> None:
    process = tmp_path / "process"
    job = new_job(tmp_path, "long", wait, process)
    with signalled(signal.SIGINT, process), pytest.raises(KeyboardInterrupt):
        sweep([job], 1, [], Progress())
    with pytest.raises(ProcessLookupError):
        os.kill(int(process.read_text()), 0)
    assert not job.finished()


def fail_to_train(arguments: list[str], windows: int, folder: Path) -> None:
    fail()


def train_for_ever(arguments: list[str], windows: int, folder: Path) -> None:
    wait(folder.parents[2] / "process")


def with_start(folder: Path, place: Path) -> list[str]:
    """The command line for a folder that has the start already."""
    shutil.copytree(folder / "small" / "starts", place / "small" / "starts")
    return ["--small", "--workers", "1", "--out", str(place)]


def train_by(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ENGINE", replace(jobs.ENGINE, train=work, preload=()))


def test_the_status_says_that_a_run_failed(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = with_start(folder, tmp_path)
    train_by(fail_to_train, monkeypatch)
    assert main(words) == 1
    shown = capsys.readouterr().err
    for point in POINTS:
        assert f"FAILED {run_folder(tmp_path, point)}: ValueError: no such rule" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_status_says_that_it_was_stopped(
    number: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = with_start(folder, tmp_path)
    train_by(train_for_ever, monkeypatch)
    process = tmp_path / "process"
    with signalled(number, process):
        assert main(words) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(int(process.read_text()), 0)


def test_a_folder_of_another_configuration_is_not_taken_for_done(tmp_path: Path) -> None:
    job = new_job(tmp_path, "one", succeed, tmp_path / "file")
    sweep([job], 1, [], Progress())
    assert job.finished()
    assert not Job(job.folder, {"name": "two"}, succeed, ()).finished()
