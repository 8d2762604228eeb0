"""Ctrl-C in `pcr demo`, before veRL runs and while it does: everything ends, nothing is half."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pcr_plugin.verl_cpu.overrides import environment
from tests.integration.small_run import overrides, stop_group

# What `pcr demo` does once it has a start, with a recipe that needs none.
TRAIN = """
import signal, sys
from pathlib import Path
from pcr_plugin.cli import demo
from pcr_plugin.demo import training
demo._demo = lambda _: training.train(sys.argv[2:], Path(sys.argv[1]), print)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(demo.run([]))
"""
# Whoever runs the tests in the background may have the signal ignored.
DEMO = """
import signal, sys
from pcr_plugin.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def started(folder: Path, script: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env=environment(),
        stdout=(folder / "shown.txt").open("w"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        stop_group(process.pid)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)


def interrupted(process: subprocess.Popen[str]) -> str:
    """Send Ctrl-C; all processes of the command are gone soon; what it said."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=180)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    return said


def test_before_verl_runs(tmp_path: Path) -> None:
    shown = tmp_path / "shown.txt"
    with started(tmp_path, DEMO, "demo", "--output", str(tmp_path / "demo")) as process:
        wait_for(lambda: "weights learn" in shown.read_text(), 120)
        assert interrupted(process).endswith("stopped\n")
    assert process.returncode == 1
    # The next call builds the start anew instead of taking half of one.
    assert not (tmp_path / "demo" / "start" / "about.json").exists()


@pytest.mark.slow
def test_while_verl_runs(folder: Path) -> None:
    output = folder / "verl.log"

    def has_workers() -> bool:
        return output.exists() and "TaskRunner" in output.read_text(errors="replace")

    with started(folder, TRAIN, str(folder), *overrides(folder, steps=2)) as process:
        wait_for(has_workers, 240)
        assert interrupted(process).endswith("stopped\n")
    assert process.returncode == 1
