"""veRL's console: `step:3 - actor/lr:1e-06 - ...`, and the configuration it prints at the start.

Ray puts `(TaskRunner pid=1) ` in colour before every line of the trainer.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pcr_plugin.plots.logs.log import Log

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PROCESS = re.compile(r"^\(\w+ pid=[^)]*\) ")
_STEP = re.compile(r"(?<![\w/])step:(\d+)(?= - )")
# numpy's scalars are printed as `np.float64(0.5)`
_METRIC = re.compile(
    r" - (?P<key>.{1,300}?):(?:np\.\w+\()?"
    r"(?P<value>[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf)|True|False)\)?(?= - |\s*$)",
)
_CONFIGURATION = "{'actor_rollout_ref'"  # the first key in the alphabet, as pprint sorts them
_TRUTH = {"True": 1.0, "False": 0.0}


def read(path: Path) -> Log:
    """A log; lines that are none of a step's are passed over."""
    log = Log()
    for line in _lines(path):
        if found := _STEP.search(line):
            log.add(int(found[1]), dict(_metrics(line[found.end() :])))
    return log


def has_steps(path: Path) -> bool:
    """Whether any line is one of a step."""
    return any(_STEP.search(line) for line in _lines(path))


def printed_configuration(path: Path) -> dict[str, Any] | None:
    """The configuration that veRL prints before it starts, or `None`.

    It is read as a literal; nothing in it is executed.
    """
    printed: list[str] = []
    process = ""
    for line in _lines(path):
        head = _PROCESS.match(line)
        text = line[head.end() :] if head else line
        if not printed:
            if text.startswith(_CONFIGURATION):
                printed, process = [text], head[0] if head else ""
        elif (head[0] if head else "") == process:
            if not text.startswith(" "):
                break
            printed.append(text)
    try:
        found = ast.literal_eval("\n".join(printed))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, dict) else None


def _lines(path: Path) -> Iterator[str]:
    """Without colours; a progress bar's carriage return ends a line, too."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            yield _COLOUR.sub("", line.rstrip("\n"))


def _metrics(text: str) -> Iterator[tuple[str, float]]:
    for found in _METRIC.finditer(text):
        value = found["value"]
        try:
            yield found["key"], _TRUTH[value] if value in _TRUTH else float(value)
        except ValueError:  # 1.2.3
            continue
