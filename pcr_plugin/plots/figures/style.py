"""Colours that the colour-blind tell apart, and line styles and markers for print in grey."""

from collections.abc import Sequence
from typing import Any

# Okabe and Ito (2008), without the yellow, which is faint on white; dark and light in turn.
COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
_LINES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (2, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("///", "...", "\\\\\\")
CURVES = len(COLOURS)  # on one page
BANDS = 5  # on one page, of curves with bands
# From dark (conflict) to light, so that print in grey keeps the order.
COSINES = "cividis"
_SETTINGS = {
    "font.size": 9,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "pcr",  # the same file from the same data
}
_LONGEST = 70  # characters of a label
_LONGEST_AXIS = 36


def settings() -> Any:
    """matplotlib's settings while a figure is drawn and saved.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            f'figures need matplotlib: pip install "pcr-plugin[plot]" ({error})'
        ) from error
    return matplotlib.rc_context(_SETTINGS)


def panels(
    rows: int, columns: int, size: tuple[float, float] = (4.2, 2.9), share: bool = False
) -> tuple[Any, list[Any]]:
    """A figure and its axes, row by row.

    Args:
        rows: of panels.
        columns: of panels.
        size: of one panel in inches.
        share: one horizontal axis for all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share)
    return figure, [axis for row in axes for axis in row]


def look(index: int) -> dict[str, Any]:
    """Colour, line and marker of the curve with this index; hollow markers from the eighth on."""
    turn, number = divmod(index, CURVES)
    line = _LINES[(number + turn) % CURVES]
    found = {"color": COLOURS[number], "linestyle": line, "marker": _MARKERS[number]}
    return found | ({"markerfacecolor": "white"} if turn else {})


def spread_markers(count: int, index: int) -> tuple[int, int]:
    """About six markers on a line of `count` points, at other places on every line."""
    every = max(1, count // 6)
    return (index * every // CURVES) % every, every


def legend(figure: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Below the panels, so that it hides no data."""
    labels = [text(name) for name in names]
    longest = max((len(label) for label in labels), default=0)
    width = int(figure.get_size_inches()[0] * 13)  # characters in a line
    columns = max(1, min(len(labels), width // (longest + 8)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, handlelength=3.5, fontsize=8
    )


def text(content: str) -> str:
    """A label as it stands: no mathematics, nothing unprintable, not too long."""
    plain = "".join(each if each.isprintable() else "?" for each in content)
    plain = plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"
    # matplotlib leaves labels that begin with an underscore out of legends
    return (" " + plain if plain.startswith("_") else plain).replace("$", r"\$")


def labelled(what: str, metric: str) -> str:
    """An axis label: what it is, and below it veRL's metric, of a long one the end."""
    name = metric if len(metric) <= _LONGEST_AXIS else "…" + metric[-_LONGEST_AXIS:]
    return f"{text(what)}\n{text(name)}"
