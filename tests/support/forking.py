"""Processes that begin with everything imported: forked from one that does nothing but import.

torch, Megatron-core and veRL take a rank about eight seconds to import. The process that they are
forked from runs no case and has no process group, so a rank finds what a new process would have
after its imports, and shares nothing with the ranks before it.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[2]

_forks = multiprocessing.get_context("forkserver")


class Forked:
    """A process with what `tests.support.launch` asks of a `subprocess.Popen`.

    Args:
        preloaded: module that is imported beforehand; the same one in all calls.
        module: name of a module with a command line.
        arguments: of its command line.
        environment: of the process.
        log: what it writes.
    """

    def __init__(
        self,
        preloaded: str,
        module: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        log: Path,
    ) -> None:
        what = (preloaded, module, list(arguments), environment, str(log))
        self._process: ForkServerProcess = _forks.Process(target=_run, args=what)
        # Where there is no server yet, it starts with this environment and imports the module.
        _forks.set_forkserver_preload([preloaded])
        paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        with patch.dict(os.environ, environment | {"PYTHONPATH": os.pathsep.join(paths)}):
            self._process.start()

    @property
    def returncode(self) -> int | None:
        """`None` while it runs; negative if a signal has ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def wait(self) -> None:
        """Return when it has ended."""
        self._process.join()


def _run(
    preloaded: str, module: str, arguments: list[str], environment: dict[str, str], log: str
) -> None:
    """In the new process: what `python -m module` does, with another log."""
    with open(log, "wb") as out:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(out.fileno(), stream.fileno())
    # The server goes on without a module that it cannot import, which would go unnoticed.
    if preloaded not in sys.modules:
        raise ImportError(f"{preloaded} was not imported beforehand")
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
