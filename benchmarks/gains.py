"""What every improvement of the passes saves, in the layouts that measured it on and off."""

from collections.abc import Mapping
from typing import Any

from benchmarks.ratios import quartiles, ratio, shown

Row = Mapping[str, Any]

# What is saved: an update without it, and one with it.
_PAIRS = {
    "one forward pass for both objectives": ("two_forward", "shared_forward"),
    "one recomputation for both, `pcr.share_recomputation`": (
        "shared_forward, recomputed twice",
        "shared_forward",
    ),
    "`pcr.combine_signals`, with `split_half`": (
        "shared_forward, split_half",
        "shared_forward, split_half, combined",
    ),
    "`pcr.combine_signals`, with `sequence`": (
        "shared_forward, sequence",
        "shared_forward, sequence, combined",
    ),
    "`pcr.zero_advantage=skip`, half of the advantages zero": (
        "shared_forward, sequence, run",
        "shared_forward, sequence, skip",
    ),
    "`pcr.zero_advantage=group`, half of the advantages zero": (
        "shared_forward, sequence, run",
        "shared_forward, sequence, group",
    ),
}


def gains_table(results: Mapping[str, Mapping[str, Row]]) -> str:
    """One row per improvement and layout; empty where none was measured on and off.

    Args:
        results: per layout those of each variant.
    """
    lines = []
    for what, (without, with_it) in _PAIRS.items():
        for layout, rows in results.items():
            pair = [rows.get(name, {}) for name in (without, with_it)]
            if all("median" in row for row in pair):
                before, after = (shown(row, rows["stock"]) for row in pair)
                lines.append(f"| {what} | {layout} | {before} | {after} | {_saved(*pair)} |")
    if not lines:
        return ""
    head = "| improvement | layout | against stock without | with | saved of the update |"
    told = "What is small beside the quartiles of the tables below is not shown to be there."
    return "\n".join([head, "|" + "---|" * 5, *lines, "", told]) + "\n\n"


def _saved(before: Row, after: Row) -> str:
    spread = quartiles(after, before)
    shown_spread = f" ({_percent(spread[1])} to {_percent(spread[0])})" if spread else ""
    return f"{_percent(ratio(after, before))}{shown_spread} %"


def _percent(times: float) -> int:
    return round(100 * (1 - times))
