"""How much longer one update takes than another.

Where the times of all updates are kept, those of one repeat are divided by each other, since they
were taken within seconds: what makes the whole machine slower for a minute is not in the ratio.
Files of before have medians alone.
"""

import statistics
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]


def ratio(row: Row, other: Row) -> float:
    """The median over the repeats, or the ratio of the medians.

    Args:
        row: of an update, see `measure`.
        other: of the one that it is compared with.
    """
    found = _by_repeat(row, other)
    return statistics.median(found) if found else row["median"] / other["median"]


def quartiles(row: Row, other: Row) -> tuple[float, float] | None:
    """The first and the third of the ratio over the repeats; `None` where they are not known.

    Args:
        row: of an update, see `measure`.
        other: of the one that it is compared with.
    """
    found = _by_repeat(row, other)
    if len(found) < 3:
        return None
    low, _, high = statistics.quantiles(found, n=4)
    return low, high


def shown(row: Row, other: Row) -> str:
    """The ratio with its quartiles, if those are known.

    Args:
        row: of an update, see `measure`.
        other: of the one that it is compared with.
    """
    text, spread = f"{ratio(row, other):.2f}", quartiles(row, other)
    if spread is None or row is other:
        return text
    return f"{text} ({spread[0]:.2f}-{spread[1]:.2f})"


def _by_repeat(row: Row, other: Row) -> list[float]:
    mine, theirs = row.get("seconds", []), other.get("seconds", [])
    return [a / b for a, b in zip(mine, theirs, strict=True)] if mine and theirs else []
