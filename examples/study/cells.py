"""What stands in the cells of the tables."""

from collections.abc import Iterable, Sequence

from examples.study.comparison import Paired
from examples.study.recipe import Point
from pcr_plugin.plots.tables.statistics import Estimate

NAMES = ("rule", "β", "rate", "scope")


def row(cells: Iterable[str]) -> str:
    """A line of Markdown."""
    return "| " + " | ".join(cells) + " |"


def heading(names: Sequence[str]) -> list[str]:
    """The two lines above a table."""
    return [row(names), row(["---"] * len(names))]


def named(point: Point) -> list[str]:
    """What a point differs in from others, see `NAMES`."""
    scope = "" if point.rule == "stock" else point.scope
    return [point.rule, f"{point.beta:g}", f"{point.rate:g}", scope]


def mean(found: Estimate | None, digits: int, signed: bool = False) -> str:
    """A mean over seeds with its standard error, which one seed has not.

    Args:
        found: nothing if it is `None`.
        digits: after the point.
        signed: whether it is a difference.
    """
    if found is None:
        return ""
    error = "" if found.error is None else f" ± {found.error:.{digits}f}"
    return f"{found.mean:{'+' if signed else ''}.{digits}f}{error}"


def difference(found: Paired | None, digits: int) -> str:
    """A difference between runs of one seed, with p of Student's paired test.

    Args:
        found: nothing if it is `None`.
        digits: after the point.
    """
    if found is None:
        return ""
    shown = f"{found.difference.mean:+.{digits}f}"
    if found.p_value is None:
        return shown
    p = "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
    return f"{shown} (p {p})"
