"""Markdown tables of one layout's results."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.breakdown import PARTS
from benchmarks.ratios import shown

Row = Mapping[str, Any]
_MIB = 2**20
# Of exact separate gradients, in multiples of stock: passes over the model, where a forward pass
# is 1, a backward pass 2, and a recomputation 1.
_LIMITS = {
    False: {
        "two_forward": "2.00",
        "shared_forward": "1.67 (5/3)",
        # Outside the scope one weight gradient of the two signals together.
        "shared_forward, split_half, combined": "1.56 (14/9)",
        "shared_forward, sequence, combined": "1.56 (14/9)",
    },
    True: {
        "two_forward": "2.00",
        "shared_forward": "1.50 (3/2)",
        "shared_forward, recomputed twice": "1.75 (7/4)",
        "shared_forward, sequence, combined": "1.42 (17/12)",
    },
}


def table(results: Mapping[str, Row]) -> str:
    """Markdown rows.

    Args:
        results: per variant what `measure` gives; `stock` is what the others are compared with.
    """
    stock = results["stock"]
    heads = ["update", "seconds, median (quartiles)", "against stock", "statistics and combine"]
    if "peak" in stock:
        heads += ["peak memory, MiB", "over stock, MiB", "in gradients of the scope"]
        heads.append("beside one of them, MiB")
    if _has_unseen(results):
        heads.append("perhaps freed unseen, MiB")
    lines = [_line(heads), "|" + "---|" * len(heads)]
    for name, row in results.items():
        found = ["refused"] if "refused" in row else _cells(row, stock)
        lines.append(_line([name, *found, *[""] * len(heads)][: len(heads)]))
    refused = [f"{name}: {row['refused']}" for name, row in results.items() if "refused" in row]
    text = "".join(f"\nRefused: {message}\n" for message in refused)
    return "\n".join(lines) + "\n" + text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _has_unseen(results: Mapping[str, Row]) -> bool:
    return any(row.get("unseen", 0) >= _MIB for row in results.values())


def _cells(row: Row, stock: Row) -> list[str]:
    """Those of a row that was not refused, after its name."""
    spread = f"{row['median']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
    share = f"{100 * row['share']:.2f} %" if row["share"] else ""
    cells = [spread, shown(row, stock), share]
    if "peak" not in stock:
        return cells
    over, scope = row["peak"] - stock["peak"], row["scope"]
    beside = [f"{over / scope:.2f}", _mib(over - scope)] if scope else ["", ""]
    peak = [_mib(row["peak"]), "" if row is stock else _mib(over), *beside]
    return [*cells, *peak, _mib(row.get("unseen", 0))]


def _mib(number: float) -> str:
    return f"{round(number / _MIB, 1) + 0.0:.1f}"  # not -0.0


def breakdown_table(results: Mapping[str, Row]) -> str:
    """Seconds of every part of the profiled update, one column per variant.

    Args:
        results: per variant what `measure` gives.
    """
    columns = {name: row["parts"] for name, row in results.items() if row.get("parts")}
    if not columns:
        return ""
    lines = [f"| seconds of | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for part in PARTS:
        if any(part in found for found in columns.values()):
            cells = [f"{found[part]:.3f}" if part in found else "" for found in columns.values()]
            lines.append(f"| {part} | {' | '.join(cells)} |")
    totals = [f"{sum(found.values()):.3f}" for found in columns.values()]
    lines.append(f"| profiled update | {' | '.join(totals)} |")
    return "\n" + "\n".join(lines) + "\n"


def limits_table(results: Mapping[str, Mapping[str, Row]]) -> str:
    """How near two gradients come to the least that they can cost.

    Args:
        results: per layout the results; those that were measured with the two ways of running
            the passes are shown.
    """
    lines = []
    for layout, rows in results.items():
        for name, limit in _LIMITS["checkpointing" in layout].items():
            if name in rows and "refused" not in rows[name]:
                lines.append(
                    f"| {layout} | {name} | {_against(rows[name], rows['stock'], limit)} |"
                )
    if not lines:
        return ""
    head = "| layout | passes | against stock | the passes alone | statistics and combine |"
    head += " memory over stock, in gradients of the scope |"
    return "\n".join([head, "|" + "---|" * 6, *lines]) + "\n\n"


def _against(row: Row, stock: Row, limit: str) -> str:
    over = f"{(row['peak'] - stock['peak']) / row['scope']:.2f}" if row["scope"] else ""
    return f"{shown(row, stock)} | {limit} | {100 * row['share']:.2f} % | {over}"
