"""Seconds of one actor update: stock veRL against each rule, in one process, interleaved.

    VERL_PLATFORM=cpu python -m benchmarks.actor_update --out docs

writes `benchmarks.md` and, with every number it is made of, `benchmarks.json` into the folder.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.workload import Workload, make_batch, make_update, save_model

# name -> (update_rule, keys below pcr)
VARIANTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "stock": (None, {}),
    "sum": ("sum", {}),
    "pcr (paper)": ("pcr", {}),
    "pcr (robust)": ("pcr", {"preset": "robust"}),
    "pcr, split_half": ("pcr", {"variance": {"estimator": "split_half"}}),
    "pcgrad": ("pcgrad", {}),
    "soft 0.5": ("soft", {"alpha": 0.5}),
    "observe, a measuring step": ("observe", {"observe_every": 1}),
}

STRATEGIES = ("fsdp", "fsdp2")
Update = Callable[[Any], dict[str, Any]]


def measure(workload: Workload, repeats: int) -> dict[str, dict[str, float]]:
    """Time every variant.

    Args:
        workload: model and mini-batch.
        repeats: updates timed per variant, after one that is not.

    Returns:
        Per variant: median, quartiles, and the share of statistics, communication and combine.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        save_model(workload, model)
        updates = {
            name: make_update(workload, model, rule, settings)
            for name, (rule, settings) in VARIANTS.items()
        }
    for update in updates.values():
        update(make_batch(workload, seed=0))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in updates}
    for repeat in range(repeats):
        for name, update in updates.items():
            samples[name].append(timed(update, make_batch(workload, seed=repeat)))
    return {name: summary(rows) for name, rows in samples.items()}


def timed(update: Update, batch: Any) -> tuple[float, float]:
    """Seconds of one update, and of its statistics, communication and combination."""
    start = time.perf_counter()
    metrics = update(batch)["metrics"]
    seconds = time.perf_counter() - start
    ours = metrics.get("pcr/seconds")
    return seconds, float(ours.aggregate()) if ours is not None else 0.0


def summary(rows: list[tuple[float, float]]) -> dict[str, float]:
    """Median and quartiles of the update, and the median share that is ours."""
    low, median, high = statistics.quantiles([seconds for seconds, _ in rows], n=4)
    share = statistics.median(ours / seconds for seconds, ours in rows)
    return {"median": median, "low": low, "high": high, "share": share}


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown rows."""
    stock = results["stock"]["median"]
    lines = [
        "| rule | seconds, median (quartiles) | against stock | statistics and combine |",
        "|---|---|---|---|",
    ]
    for name, row in results.items():
        spread = f"{row['median']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
        share = f"{100 * row['share']:.2f} %" if row["share"] else ""
        lines.append(f"| {name} | {spread} | {row['median'] / stock:.2f} | {share} |")
    return "\n".join(lines) + "\n"


PAGE = """# What it costs

Seconds of one actor update (`train_batch` of veRL's real engine: zero, passes, clip, step) of
stock veRL and of each rule, in one process, interleaved. Two gradients by two whole passes cost
twice the stock update; the limit for exact separate gradients is lower
(a shared forward pass is not built yet).

Command: `{command}`

{date}, {machine}, {versions}. Medians of {repeats} updates of each kind (quartiles in brackets);
a Qwen2 of width {width}, {layers} layers, vocabulary {vocabulary}, float32, random weights;
{sequences} sequences of {prompt} + at most {response} tokens in {micro_batches} micro-batches;
activation checkpointing {checkpointing}.

{tables}
The last column is what `actor/pcr/seconds` measures: gradient norms in the hooks, inner products,
the all-reduce, the rule and the combination, as a share of the update.

`observe` measures with two extra passes and then runs the stock update; between measurements
(`pcr.observe_every`, 10 by default) its step is the stock step.

Not measured here: GPUs, several ranks over a network, memory.
"""


def page(report: dict[str, Any]) -> str:
    """The markdown page for a report, so that its numbers cannot drift from the file's."""
    workload = report["workload"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    tables = "\n".join(
        f"`strategy={strategy}`:\n\n{table(results)}"
        for strategy, results in report["results"].items()
    )
    values = {**report, **workload, "versions": versions, "tables": tables}
    values["checkpointing"] = "on" if workload["checkpointing"] else "off"
    return PAGE.format_map(values)


def conditions(workload: Workload, repeats: int) -> dict[str, Any]:
    """Everything that the numbers depend on."""
    return {
        "command": " ".join(["VERL_PLATFORM=cpu python -m benchmarks.actor_update", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "verl", "transformers")},
        "repeats": repeats,
        "workload": asdict(workload),
    }


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--repeats", type=int, default=10)
    for field in fields(Workload):
        if field.type is int:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}", type=int, default=field.default
            )
    parser.add_argument("--checkpointing", action="store_true")
    arguments = vars(parser.parse_args())
    out, repeats = arguments.pop("out"), arguments.pop("repeats")
    workload = Workload(**arguments)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    results = {}
    for strategy in STRATEGIES:
        results[strategy] = measure(replace(workload, strategy=strategy), repeats)
        gc.collect()  # the engines of one strategy are not there while the next is measured
    torch.distributed.destroy_process_group()
    out.mkdir(parents=True, exist_ok=True)
    report = {**conditions(workload, repeats), "results": results}
    (out / "benchmarks.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "benchmarks.md").write_text(page(report))
    print(page(report))


if __name__ == "__main__":
    main()
