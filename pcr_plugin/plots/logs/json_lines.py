"""veRL's file logger: one JSON object per line, `{"step": 3, "data": {"actor/lr": 1e-06}}`."""

import json
from math import nan
from pathlib import Path
from typing import Any

from pcr_plugin.plots.logs.log import Log

_FORM = '{"step": <integer>, "data": {<metric>: <number>}}'


def record(line: str | bytes) -> tuple[int, dict[str, float]]:
    """One line.

    Args:
        line: without the line break.

    Returns:
        The step and its metrics. `null` is NaN: veRL's JSON library writes NaN and infinity so.
        What is not a number is left out.

    Raises:
        ValueError: no such line.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        content = None
    step = content.get("step") if isinstance(content, dict) else None
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(step, int) or not isinstance(data, dict):
        raise ValueError(f"{line[:80]!r} is no line of veRL's file logger, {_FORM}")
    return step, {key: _number(value) for key, value in data.items() if _is_number(value)}


def read(path: Path) -> Log:
    """A log, also of a run that is under way or was killed in the middle of a line.

    Raises:
        ValueError: a line that the file logger does not write; the message has its number.
    """
    log = Log()
    lines = path.read_bytes().rpartition(b"\n")[0].splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                log.add(*record(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return log


def begins_like_one(path: Path) -> bool:
    """Whether the first line is one of veRL's file logger."""
    with path.open("rb") as file:
        first = file.readline()
    try:
        record(first)
    except ValueError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _number(value: float | None) -> float:
    try:
        return nan if value is None else float(value)
    except OverflowError:  # an integer with more digits than a float can hold
        return nan
