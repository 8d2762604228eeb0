"""Run veRL in a process of its own, and follow it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pcr_plugin.demo.log import RunLog
from pcr_plugin.verl_cpu.overrides import environment

_GRACE = 30  # seconds for Ray to stop its processes


def train(
    arguments: list[str], folder: Path, on_step: Callable[[int, dict[str, float]], None]
) -> RunLog:
    """Train, with veRL's output in `folder/verl.log` and its metrics in `folder/log.jsonl`.

    Args:
        arguments: Hydra overrides.
        folder: for the files; its old log is replaced.
        on_step: called with the step and its metrics as they are logged.

    Raises:
        RuntimeError: veRL failed; the message has the end of its output.
    """
    log_path, output_path = folder / "log.jsonl", folder / "verl.log"
    log_path.unlink(missing_ok=True)
    variables = environment()
    variables["VERL_FILE_LOGGER_PATH"] = str(log_path)
    # A cluster of our own: without the variable Ray joins one that runs on the machine.
    variables["RAY_ADDRESS"] = "local"
    log = RunLog(log_path)
    with output_path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "verl.trainer.main_ppo", *arguments],
            env=variables,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _follow(process, log, on_step)
        finally:
            _stop(process)
    if process.returncode != 0:
        raise RuntimeError(_failure(process.returncode, output_path))
    return log


def _follow(
    process: subprocess.Popen[bytes], log: RunLog, on_step: Callable[[int, dict[str, float]], None]
) -> None:
    running = True
    while running:
        running = process.poll() is None
        for step in log.update():
            on_step(step, log.steps[step])
        time.sleep(0.2 if running else 0)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Ray's driver takes its cluster down on SIGTERM; a kill would leave it running.
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(status: int, output: Path) -> str:
    lines = output.read_text(errors="replace").splitlines()[-30:]
    return "\n".join([*lines, f"veRL stopped with exit status {status}; see {output}"])
