"""Start one process per rank and wait for all of them."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINES_SHOWN = 40


def run_ranks(
    module: str, ranks: int, folder: Path, *, arguments: Sequence[str] = (), timeout: float = 400
) -> None:
    """Run `python -m module <rank> <ranks> <folder> <arguments>` once per rank.

    Ranks meet through a file in the folder, so nothing depends on a free port.

    Args:
        module: name of a module with a command line.
        ranks: number of processes.
        folder: for rendezvous, logs and results.
        arguments: further ones.
        timeout: seconds until everything is stopped.

    Raises:
        RuntimeError: a rank failed or took too long; shows the ends of all logs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"rank{rank}.log" for rank in range(ranks)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            command = [sys.executable, "-m", module, str(rank), str(ranks), str(folder)]
            with log.open("wb") as out:
                processes.append(
                    subprocess.Popen(
                        [*command, *arguments],
                        cwd=ROOT,
                        env=_environment(),
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )
        _wait(processes, timeout)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        ends = [_describe(p, log) for p, log in zip(processes, logs, strict=True)]
        raise RuntimeError("\n".join(ends))


def _wait(processes: Sequence[subprocess.Popen[bytes]], timeout: float) -> None:
    """Return when all are done, one has failed (the others then hang), or time is up."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if all(code == 0 for code in codes) or any(codes):
            return
        time.sleep(0.1)


def _environment() -> dict[str, str]:
    # One thread per rank: sums then have one order, and ranks do not fight over two cores.
    return {**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}


def _describe(process: subprocess.Popen[bytes], log: Path) -> str:
    tail = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:]
    return "\n".join([f"--- {log.name}, exit status {process.returncode}", *tail])
