"""docs/scaling.md, made of the numbers in docs/scaling.json and of the model.

python -m benchmarks.scaling.page docs/scaling.json
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.scaling.collectives import Counts
from benchmarks.scaling.expected import OURS, PLANS, PROBES, collectives, counts_of
from benchmarks.scaling.modelled import (
    FLOPS,
    deferred_table,
    passes_table,
    statistics_table,
    step,
)
from benchmarks.scaling.network import Network
from benchmarks.scaling.sizes import MICRO_BATCHES, MODELS, counted_workload, shape_of
from benchmarks.scaling.words import PAGE
from benchmarks.shapes import SHAPES

Report = dict[str, Any]


def page(report: Report) -> str:
    """The page.

    Args:
        report: as the JSON file has it.
    """
    network = Network()
    values = {
        **report,
        "versions": ", ".join(f"{key} {value}" for key, value in report["versions"].items()),
        "counted": _counted(report),
        "seconds": _seconds(report),
        "statistics": _statistics(),
        "modelled": passes_table(network),
        "modelled_statistics": statistics_table(network),
        "modelled_deferred": deferred_table(network),
        "flops": f"{FLOPS / 1e12:.0f}",
        "micro_batches": MICRO_BATCHES,
        "probes": PROBES,
        "inside": f"{network.latency * 1e6:.0f}",
        "between": f"{network.latency_between * 1e6:.0f}",
        "bandwidth": f"{network.bandwidth / 1e9:.0f}",
        "bandwidth_between": f"{network.bandwidth_between / 1e9:.0f}",
    }
    return PAGE.format_map(values)


def found_counts(row: dict[str, Any]) -> Counts:
    """The counts of a row of the file.

    Args:
        row: of one update.
    """
    return Counter({(kind, size): times for kind, size, times in row["counts"]})


def expected_counts(row: dict[str, Any]) -> Counts | None:
    """What the formula says of an update that was counted.

    Args:
        row: of the file.

    Returns:
        `None` where it has no plan of the update.
    """
    if row["update"] not in PLANS:
        return None
    workload = counted_workload(row["layers"], row["tied"], row["deferred"])
    plan, shape = PLANS[row["update"]], shape_of(workload)
    return counts_of(collectives(shape, plan, workload.micro_batches, deferred=row["deferred"]))


def _counted(report: Report) -> str:
    """What every update called, on the model of two layers, and whether the formula says so."""
    head = "| update | ranks | all-gathers | reduce-scatters | all-reduces | KiB | as the formula |"
    lines = [head, "|" + "---|" * 7]
    for ranks, found in report["ranks"].items():
        if ranks != "1":  # alone, FSDP2 sends nothing
            rows = [row for row in found["counts"] if not row["tied"]]
            lines += [_counted_row(row, ranks) for row in rows]
    return "\n".join(lines)


def _counted_row(row: dict[str, Any], ranks: str) -> str:
    if "refused" in row:
        return f"| {row['update']} | {ranks} | refused | | | | |"
    counts = found_counts(row)
    times: Counter[str] = Counter()
    for (kind, _), number in counts.items():
        times[kind] += number
    size = sum(size * number for (_, size), number in counts.items()) / 1024
    expected = expected_counts(row)
    same = "no formula" if expected is None else "yes" if expected == counts else "no"
    shown = [times[kind] for kind in ("all-gather", "reduce-scatter", "all-reduce")]
    cells = " | ".join(map(str, shown))
    name = row["update"] + ", deferred" * row["deferred"]
    return f"| {name} | {ranks} | {cells} | {size:.0f} | {same} |"


def _seconds(report: Report) -> str:
    lines = ["| ranks | layers | width | scope on a rank | statistics, ms |", "|" + "---|" * 5]
    for ranks, found in report["ranks"].items():
        for row in found.get("seconds", []):
            sizes = f"{row['layers']} | {row['width']} | {row['scope_of_a_rank'] / 1e6:.2f} M"
            lines.append(f"| {ranks} | {sizes} | {1e3 * row['seconds']:.1f} |")
    return "\n".join(lines) if len(lines) > 2 else "Not timed in this run."


def _statistics() -> str:
    lines = ["| model | layers | table, bytes | probes, KiB |", "|" + "---|" * 4]
    for name in MODELS:
        shape = SHAPES[name]
        table, probes = (
            [one.bytes * one.times for one in step(shape, update) if one.whose == OURS]
            for update in ("two_forward", "two_forward, sequence")
        )
        lines.append(
            f"| {name} | {shape.layers} | {sum(table)} | {(sum(probes) - sum(table)) / 1024:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.with_suffix(".md").write_text(page(json.loads(path.read_text())))
