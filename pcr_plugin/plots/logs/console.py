"""veRL's console: `step:3 - actor/lr:1e-06 - ...`, and the configuration it prints at the start.

Ray puts `(TaskRunner pid=1) ` in colour before every line of the trainer. It may show a line that
is just being written in two parts, cut anywhere, with lines of other processes in between.
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
_VALUE = (
    r"(?:np\.\w+\()?(?P<value>[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf)|True|False)\)?(?= - |\s*$)"
)
_METRIC = re.compile(r" - (?P<key>.{1,300}?):" + _VALUE)
_WHOLE = re.compile(r":" + _VALUE + r"\s*$")  # what a line of a step ends with if it was not cut
# The second part of one that was cut: between metrics or in a number, or anywhere else.
_REST_OF_WHOLE = re.compile(r" - |- |[\d.e+-]+\)?(?: - |$)|\)(?: - |$)")
_REST = re.compile(r".*:" + _VALUE + r"\s*$|[\d.e+-]+\)?$")
# The first key in the alphabet, as pprint sorts them.
_CONFIGURATION = "{'actor_rollout_ref'"
_TRUTH = {"True": 1.0, "False": 0.0}


def read(path: Path) -> Log:
    """A log; lines that are none of a step's are passed over."""
    log = Log()
    begun: dict[str, tuple[int, str]] = {}  # process to its last line, if that was a step's
    for process, text in _lines(path):
        if found := _STEP.search(text):
            _finish(log, begun.pop(process, None))
            begun[process] = (int(found[1]), text[found.end() :])
        elif process in begun:
            step, line = begun.pop(process)
            if (_REST_OF_WHOLE if _WHOLE.search(line) else _REST).match(text):
                begun[process] = (step, line + text)
            else:
                _finish(log, (step, line))
    for line_of_step in begun.values():
        _finish(log, line_of_step)
    return log


def _finish(log: Log, line: tuple[int, str] | None) -> None:
    if line is not None:
        log.add(line[0], dict(_metrics(line[1])))


def has_steps(path: Path) -> bool:
    """Whether any line is one of a step."""
    return any(_STEP.search(text) for _, text in _lines(path))


def printed_configuration(path: Path) -> dict[str, Any] | None:
    """The configuration that veRL prints before it starts, or `None`.

    It is read as a literal; nothing in it is executed.
    """
    printed, depth, quote, own = "", 0, "", ""
    for process, text in _lines(path):
        if not printed and text.startswith(_CONFIGURATION):
            own = process
        elif not printed or process != own:
            continue
        # pprint indents every line; what is not indented is the second part of one that was cut
        printed += "\n" * text.startswith(" ") + text
        depth, quote = _open_brackets(text, depth, quote)
        if depth == 0:
            break
    try:
        found = ast.literal_eval(printed)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, dict) else None


def _open_brackets(text: str, depth: int, quote: str) -> tuple[int, str]:
    """How many brackets are open after a text, and the quotation mark that is, if any."""
    escaped = False
    for character in text:
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "{[(") - (character in ")]}")
    return depth, quote


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Process and text, without colours; a progress bar's carriage return ends a line, too."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            plain = _COLOUR.sub("", line.rstrip("\n"))
            head = _PROCESS.match(plain)
            yield (head[0], plain[head.end() :]) if head else ("", plain)


def _metrics(text: str) -> Iterator[tuple[str, float]]:
    for found in _METRIC.finditer(text):
        value = found["value"]
        try:
            yield found["key"], _TRUTH[value] if value in _TRUTH else float(value)
        except ValueError:  # 1.2.3
            continue
