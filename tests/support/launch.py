"""Start one process per rank and wait for all of them."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.forking import ROOT, Forked

_LINES_SHOWN = 40

Process = subprocess.Popen[bytes] | Forked


def run_ranks(
    module: str,
    ranks: int,
    folder: Path,
    *,
    arguments: Sequence[str] = (),
    timeout: float = 900,
    preloaded: str | None = None,
    beside: Sequence[tuple[Path, Sequence[str]]] = (),
    python: Path | None = None,
    search: Sequence[Path] = (),
) -> None:
    """Run `python -m module <rank> <ranks> <folder> <arguments>` once per rank.

    Ranks meet through a file in the folder, so nothing depends on a free port.

    Args:
        module: name of a module with a command line.
        ranks: number of processes.
        folder: for rendezvous, logs and results.
        arguments: further ones.
        timeout: seconds until everything is stopped.
        preloaded: module that the ranks need, imported once for all launches of a session.
        beside: folders and arguments of further launches at the same time: ranks wait for each
            other, and while some do others compute.
        python: the interpreter of another environment.
        search: folders in which it finds modules, beside the root of the repository.

    Raises:
        RuntimeError: a rank failed or took too long; shows the ends of all logs.
    """
    environment = _environment()
    if python is not None:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, *search)))
    processes: list[Process] = []
    logs: list[Path] = []
    try:
        for place, further in ((folder, arguments), *beside):
            place.mkdir(parents=True, exist_ok=True)
            for rank in range(ranks):
                logs.append(place / f"rank{rank}.log")
                command = [str(rank), str(ranks), str(place), *further]
                if preloaded is not None:
                    forked = Forked(preloaded, module, command, environment, logs[-1])
                    processes.append(forked)
                else:
                    start = [str(python or sys.executable), "-m", module, *command]
                    processes.append(_start(start, environment, logs[-1]))
        _wait(processes, timeout)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        ends = [_describe(p, log) for p, log in zip(processes, logs, strict=True)]
        raise RuntimeError("\n".join(ends))


def _start(command: Sequence[str], environment: dict[str, str], log: Path) -> Process:
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
        )


def _wait(processes: Sequence[Process], timeout: float) -> None:
    """Return when all are done, one has failed (the others then hang), or time is up."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if all(code == 0 for code in codes) or any(codes):
            return
        time.sleep(0.1)


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "VERL_PLATFORM": "cpu",
        # One thread per rank: sums then have one order, and ranks do not fight over two cores.
        "OMP_NUM_THREADS": "1",
        # A rank that crashes in native code otherwise ends without a word.
        "PYTHONFAULTHANDLER": "1",
    }


def _describe(process: Process, log: Path) -> str:
    tail = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:]
    return "\n".join([f"--- {log.name}, exit status {process.returncode}", *tail])
