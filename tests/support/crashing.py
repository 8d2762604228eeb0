"""A rank that crashes in native code. `python -m ... <rank> <ranks> <folder> crash`.

With `<folder> launch` it starts one, forked from a process that has imported this module.
"""

import os
import signal
import sys
from pathlib import Path

from tests.support.launch import run_ranks


def crash() -> None:
    """What a wrong pointer ends with."""
    os.kill(os.getpid(), signal.SIGSEGV)


if __name__ == "__main__":
    *_, where, what = sys.argv
    if what == "crash":
        crash()
    else:
        module = __spec__.name
        run_ranks(module, 1, Path(where), arguments=["crash"], preloaded=module)
