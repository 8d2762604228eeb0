"""Runs that are packed on one machine are finished on another."""

import json
from pathlib import Path

import pytest

from examples.study.kept import pack, thinned, unpack
from examples.study.sweep import Job

NAMES = ("engine/stock-seed0", "engine/robust-seed0", "full/stock-seed0")


def job(study: Path, name: str) -> Job:
    return Job(study / name, {"overrides": [f"name={name}"]}, print, ())


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three finished runs and a start, below a folder that only this machine has."""
    study = tmp_path / "here"
    for name in NAMES:
        run = study / name
        (run / ".hydra").mkdir(parents=True)
        (run / "run.json").write_text(json.dumps(job(study, name).what))
        (run / "done.json").write_text('{"seconds": 2.5}')
        (run / ".hydra" / "config.yaml").write_text(f"path: {study}/starts/one/model\n")
        (run / "log.jsonl").write_text('{"step": 1, "data": {"loss": 0.123456789}}\n')
        (run / "output.log").write_text("long")
    (study / "starts" / "one").mkdir(parents=True)
    (study / "starts" / "one" / "about.json").write_text("{}")
    return study


def packed(study: Path, file: Path) -> Path:
    assert pack(file, study, [job(study, name) for name in NAMES]) == len(NAMES)
    return file


def test_unpacked_runs_are_finished(study: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    file = packed(study, tmp_path / "runs.tar.xz")
    assert unpack(file, there) == sorted((*NAMES, "starts/one"))
    assert all(job(there, name).finished() for name in NAMES)
    assert (there / "starts/one/about.json").read_text() == "{}"
    assert '"loss": 0.123457' in (there / NAMES[0] / "log.jsonl").read_text()
    assert (there / NAMES[0] / ".hydra/config.yaml").read_text() == "path: starts/one/model\n"
    assert not (there / NAMES[0] / "output.log").exists()


def test_packed_again_elsewhere_they_are_the_same_bytes(study: Path, tmp_path: Path) -> None:
    first = packed(study, tmp_path / "first.tar.xz")
    there = tmp_path / "there"
    unpack(first, there)
    assert packed(there, tmp_path / "second.tar.xz").read_bytes() == first.read_bytes()


def test_a_run_that_is_there_stays(study: Path, tmp_path: Path) -> None:
    file = packed(study, tmp_path / "runs.tar.xz")
    (study / NAMES[0] / "log.jsonl").write_text("more digits")
    assert unpack(file, study) == []
    assert (study / NAMES[0] / "log.jsonl").read_text() == "more digits"


def test_a_log_keeps_all_but_digits_and_times() -> None:
    data = {"a": 1.23456789, "n": 3, "timing_s/step": 2.0, "timing_s/gen": 1.0, "perf/mfu": 0.1}
    line = json.dumps({"step": 4, "data": data}) + "\n"
    kept = {"a": 1.23457, "n": 3, "timing_s/step": 2.0}
    assert json.loads(thinned(line)) == {"step": 4, "data": kept}
