"""Seconds of one actor update: stock veRL against each rule, in one process, interleaved.

    VERL_PLATFORM=cpu python -m benchmarks.actor_update --out docs

writes `benchmarks.md` and, with every number it is made of, `benchmarks.json` into the folder.
Under `torchrun` all ranks take part and the first one writes; what needs two or four ranks is
measured so, and goes into `benchmarks_2_ranks` and `benchmarks_4_ranks`.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.layouts import LAYOUTS, VARIANTS, Layout
from benchmarks.report import Results, page
from benchmarks.update import Update, make_update
from benchmarks.workload import Workload, make_batch, save_model


def measure(
    workload: Workload, names: Sequence[str], repeats: int, make: Callable[..., Update]
) -> Results:
    """Time some variants.

    Args:
        workload: model and mini-batch.
        names: of VARIANTS.
        repeats: updates timed per variant, after one that is not.
        make: makes an update, with the arguments of `make_update`.

    Returns:
        Per variant: median, quartiles, and the share of statistics, communication and combine.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        save_model(workload, model)
        updates = {name: make(workload, model, *VARIANTS[name]) for name in names}
    for update in updates.values():
        update(make_batch(workload, seed=_seed(workload, 0)))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in updates}
    for repeat in range(repeats):
        for name, update in updates.items():
            samples[name].append(timed(update, make_batch(workload, seed=_seed(workload, repeat))))
    return {name: summary(rows) for name, rows in samples.items()}


def _seed(workload: Workload, repeat: int) -> int:
    """Another mini-batch on every replica of the model and in every repeat."""
    ranks = workload.sharing_ranks
    return repeat * (dist.get_world_size() // ranks) + dist.get_rank() // ranks


def timed(update: Update, batch: Any) -> tuple[float, float]:
    """Seconds of one update, and of its statistics, communication and combination."""
    dist.barrier()
    start = time.perf_counter()
    metrics = update(batch).get("metrics", {})
    seconds = time.perf_counter() - start
    ours = metrics.get("pcr/seconds")
    return seconds, float(ours.aggregate()) if ours is not None else 0.0


def summary(rows: list[tuple[float, float]]) -> dict[str, float]:
    """Median and quartiles of the update, and the median share that is ours."""
    low, median, high = statistics.quantiles([seconds for seconds, _ in rows], n=4)
    share = statistics.median(ours / seconds for seconds, ours in rows)
    return {"median": median, "low": low, "high": high, "share": share}


def conditions(command: str, workload: Workload, repeats: int) -> dict[str, Any]:
    """Everything that the numbers depend on."""
    return {
        "command": command,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} CPU, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads per rank",
        "versions": {name: version(name) for name in _packages(workload)},
        "ranks": dist.get_world_size(),
        "repeats": repeats,
        "workload": asdict(workload),
    }


def _packages(workload: Workload) -> list[str]:
    megatron = ["megatron-core", "mbridge"] if workload.strategy == "megatron" else []
    return ["torch", "verl", "transformers", *megatron]


def start_ranks(program: str) -> str:
    """Join the ranks that torchrun has started, or be alone.

    Args:
        program: the module that was started.

    Returns:
        The command that starts it so.
    """
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        start = f"torchrun --nproc-per-node {dist.get_world_size()} -m"
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        start = "python -m"
    return " ".join(["VERL_PLATFORM=cpu", start, program, *sys.argv[1:]])


def arguments(layouts: Mapping[str, Layout], name: str = "benchmarks") -> argparse.Namespace:
    """The command line.

    Args:
        layouts: that can be measured; by default those for this number of ranks are.
        name: of the two files, if nothing else is said, and if there is one rank.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    fitting = [key for key, layout in layouts.items() if layout.ranks in (1, ranks)]
    usual = [key for key in fitting if layouts[key].ranks == ranks]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    suffix = f"_{ranks}_ranks" if ranks > 1 else ""
    parser.add_argument("--name", default=name + suffix, help="of the two files")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--layouts", nargs="*", default=usual or fitting, choices=fitting)
    for field in fields(Workload):
        if field.type is int and not field.name.endswith("_ranks"):  # the layout says them
            name = f"--{field.name.replace('_', '-')}"
            parser.add_argument(name, type=int, default=field.default)
    parser.add_argument("--checkpointing", action="store_true")
    return parser.parse_args()


def run(
    given: argparse.Namespace,
    command: str,
    layouts: Mapping[str, Layout],
    make: Callable[..., Update],
) -> None:
    """Measure and write.

    Args:
        given: the command line.
        command: what started this.
        layouts: by name.
        make: see `measure`.
    """
    values = vars(given)
    workload = Workload(**{f.name: values[f.name] for f in fields(Workload) if f.name in values})
    results = {}
    for name in given.layouts:
        changed = replace(workload, **layouts[name].changes)
        results[name] = measure(changed, layouts[name].variants, given.repeats, make)
        gc.collect()  # the engines of one layout are not there while the next is measured
    changes = {name: dict(layouts[name].changes) for name in given.layouts}
    report = conditions(command, workload, given.repeats) | {"layouts": changes, "results": results}
    if dist.get_rank() == 0:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / f"{given.name}.json").write_text(json.dumps(report, indent=2) + "\n")
        path = given.out / f"{given.name}.md"
        others = sorted(set(given.out.glob("benchmarks*.md")) - {path})
        path.write_text(page(report, [other.name for other in others]))
        print(path.read_text())
    dist.destroy_process_group()


def main() -> None:
    """Parse the command line, measure, write."""
    given = arguments(LAYOUTS)
    run(given, start_ranks("benchmarks.actor_update"), LAYOUTS, make_update)


if __name__ == "__main__":
    main()
