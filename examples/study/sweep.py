"""Many runs, a few at a time; what is finished is not repeated.

The state is in the runs' folders: `run.json` says what the run is, `done.json` that it ended well.
A run without the latter, or with another `run.json` than is wanted, starts anew.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from examples.study.progress import Progress

_WHAT, _DONE, OUTPUT = "run.json", "done.json", "output.log"
SERVER_OUTPUT = "server.log"
_GRACE = 60  # seconds for a run that is told to stop; Ray takes some


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        folder: of the run; its name is the run's.
        what: all that the run depends on, for JSON.
        work: a function of a module, called in a process of its own.
        arguments: of `work`.
    """

    folder: Path
    what: dict[str, Any]
    work: Callable[..., None]
    arguments: tuple[Any, ...]

    def finished(self) -> bool:
        """Whether its folder has this run's results."""
        done, what = self.folder / _DONE, self.folder / _WHAT
        return done.exists() and json.loads(what.read_text()) == json.loads(json.dumps(self.what))


@dataclass(frozen=True)
class Failed:
    """A run that did not end well.

    Attributes:
        job: the run.
        reason: the last line of its output.
    """

    job: Job
    reason: str


def sweep(
    jobs: Sequence[Job], workers: int, preload: Sequence[str], progress: Progress
) -> list[Failed]:
    """Do what is not done.

    Args:
        jobs: in this order.
        workers: processes at a time.
        preload: modules that are imported once instead of by every run.
        progress: is told what happens.

    Returns:
        Those that failed; they are tried again by the next call.

    Raises:
        KeyboardInterrupt: after the running ones were stopped.
    """
    waiting = [job for job in jobs if not job.finished()]
    progress.begin(len(jobs), len(waiting), workers)
    context = get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    if waiting:
        _start_server(waiting[0].folder.parent / SERVER_OUTPUT)
    running: dict[int, tuple[Job, BaseProcess, float]] = {}
    failed = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                _clear(job)
                started = context.Process(target=_run, args=(job,), name=job.folder.name)
                started.start()
                running[started.sentinel] = (job, started, time.monotonic())
            ended = wait(list(running), timeout=1.0)
            for sentinel in [each for each in running if each in ended]:
                job, process, began = running.pop(sentinel)
                process.join()
                if job.finished():
                    progress.finished(job.folder.name, time.monotonic() - began)
                else:
                    failed.append(Failed(job, _reason(job, process.exitcode)))
                    progress.failed(job.folder.name, failed[-1].reason)
    finally:
        _stop([process for _, process, _ in running.values()])
    return failed


def _start_server(output: Path) -> None:
    """Whatever the preloaded modules say about this machine is not the progress of the runs."""
    output.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with output.open("wb") as file:
            os.dup2(file.fileno(), 2)
        forkserver.ensure_running()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _clear(job: Job) -> None:
    if job.folder.exists():
        shutil.rmtree(job.folder)
    job.folder.mkdir(parents=True)
    (job.folder / _WHAT).write_text(json.dumps(job.what, indent=2) + "\n")


def _run(job: Job) -> None:
    """In the new process: everything that is printed goes into the run's folder."""
    # Ctrl-C reaches every process of the terminal; who ends a run is the sweep.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output = os.open(job.folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(output, stream.fileno())
    began = time.monotonic()
    try:
        job.work(*job.arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    unfinished = job.folder / f"{_DONE}.new"
    # The second number is also of use where other work goes on.
    taken = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time()}
    unfinished.write_text(json.dumps(taken) + "\n")
    unfinished.rename(job.folder / _DONE)  # at once or not at all
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a run may leave threads behind that do not end


def _reason(job: Job, status: int | None) -> str:
    output = job.folder / OUTPUT
    lines = output.read_text(errors="replace").split("\n") if output.exists() else []
    said = [line for line in lines if line.strip()]
    return said[-1] if said else f"exit status {status}"


def _stop(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
            process.join()
