"""The pages that show what was measured, made of the numbers in the files beside them.

python -m benchmarks.report docs
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gains import gains_table
from benchmarks.ratios import shown
from benchmarks.tables import breakdown_table, limits_table, table
from benchmarks.verdict import verdict
from benchmarks.words import NO_GPU, NOTES, OBSERVED, PAGE, PEERS

Report = dict[str, Any]


def write_pages(folder: Path) -> None:
    """Write the page of every file of results in a folder, since each links to the others.

    Args:
        folder: with `benchmarks*.json`.
    """
    reports = {path.stem: json.loads(path.read_text()) for path in folder.glob("benchmarks*.json")}
    for name in reports:
        (folder / f"{name}.md").write_text(page(name, reports))


def page(name: str, reports: Mapping[str, Report]) -> str:
    """The markdown page for a report, so that its numbers cannot drift from the file's.

    Args:
        name: of the report.
        reports: by name: conditions and results, as the JSON files have them.
    """
    report = reports[name]
    workload, results = report["workload"], report["results"]
    shown = [_section(report, layout) for layout in results]
    notes = [text for part, text in NOTES.items() if any(part in layout for layout in results)]
    variants = {variant for found in results.values() for variant in found}
    others = sorted(f"{other}.md" for other in reports if other != name)
    values = {
        **workload,
        **report,
        "versions": ", ".join(f"{key} {value}" for key, value in report["versions"].items()),
        "precision": {"fp32": "float32", "bf16": "bfloat16"}[workload.get("precision", "fp32")],
        "model": f"`{report['model']}`" if report.get("model") else "A Qwen2",
        "limits": limits_table(results),
        "gains": gains_table(results),
        "verdict": verdict(report),
        "notes": "".join(f"{text}\n\n" for text in notes),
        "tables": "\n".join(shown),
        "observed": OBSERVED if any("observe" in variant for variant in variants) else "",
        "peers": _peers(variants),
        "gpu": _gpu(reports) if name == "benchmarks" else "",
        "links": ", ".join(f"[{other}]({other})" for other in others),
        "checkpointing": "on" if workload["checkpointing"] else "off",
    }
    values["links"] = f"\nOther layouts: {values['links']}.\n" if others else ""
    # What is empty leaves no gap.
    return re.sub(r"\n{3,}", "\n\n", PAGE.format_map(values))


def _section(report: Report, layout: str) -> str:
    """The tables of one layout."""
    results = report["results"][layout]
    changes = dict(report["layouts"].get(layout, {}))
    changes |= dict(changes.pop("engine", ()))
    words = [f"{key.replace('_', ' ')} {value}" for key, value in changes.items()]
    measured = report.get("dates", {}).get(layout, report["date"])
    repeats = report.get("repeated", {}).get(layout, report["repeats"])
    words += [f"on {measured}"] * (measured != report["date"])
    words += [f"medians of {repeats}"] * (repeats != report["repeats"])
    said = ", ".join(words)
    parts = breakdown_table(results) if layout in report.get("parts", []) else ""
    return f"`{layout}`{f' ({said})' if said else ''}:\n\n{table(results)}{parts}"


def _peers(variants: set[str]) -> str:
    lines = [f"- {name}: {text}." for name, text in PEERS.items() if name in variants]
    return "\n".join(["What the peers do differently:", "", *lines, "", ""]) if lines else ""


def _gpu(reports: Mapping[str, Report]) -> str:
    """Rows for a GPU: of the files that there are, and empty ones where there is none."""
    found = {name: report for name, report in reports.items() if "_cuda" in name}
    lines = ["| model and layout | update | seconds | against stock | machine |", "|" + "---|" * 5]
    for name, report in sorted(found.items()):
        for layout, rows in report["results"].items():
            lines += [_gpu_row(report, layout, variant, rows) for variant in rows]
        lines.append(f"| all of it: [{name}.md]({name}.md) | | | | |")
    if not found:
        lines += [f"| {model}, {layout} | | | | |" for model, layout in _gpu_layouts()]
    return NO_GPU[not found] + "\n".join(lines) + "\n\n"


def _gpu_row(report: Report, layout: str, variant: str, rows: Mapping[str, Any]) -> str:
    row, what = rows[variant], f"{report['model']}, {layout}"
    if "refused" in row:
        return f"| {what} | {variant} | refused | | |"
    against = shown(row, rows["stock"])
    return f"| {what} | {variant} | {row['median']:.3f} | {against} | {report['machine']} |"


def _gpu_layouts() -> Sequence[tuple[str, str]]:
    from benchmarks.layouts import gpu_layouts

    models = ("qwen2.5-0.5b", "qwen2.5-1.5b")
    return [(model, layout) for model in models for layout in gpu_layouts(model)]


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
