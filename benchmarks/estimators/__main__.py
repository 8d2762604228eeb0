"""Bias, spread and cost of the estimators of the variance, against the exact value.

    VERL_PLATFORM=cpu python -m benchmarks.estimators --out docs

writes `estimators.md` and, with every number it is made of, `estimators.json` into the folder.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.estimators.exact import DRAWS, Exact, measure_exact
from benchmarks.estimators.figures import about, quality, resampled
from benchmarks.estimators.orders import random_orders, units
from benchmarks.estimators.page import page
from benchmarks.estimators.passes import Passes
from benchmarks.estimators.probing import measure_memory, measure_probes
from benchmarks.estimators.rollouts import Batch
from benchmarks.estimators.settings import SMALL, Settings
from benchmarks.estimators.stepping import measure_steps
from benchmarks.estimators.training import train
from pcr_plugin.blocks import partition
from pcr_plugin.config.settings import DEFAULT_PROBES
from pcr_plugin.demo.start import prepare


def measure(settings: Settings, start: Path) -> dict[str, Any]:
    """Train, keep batches, measure them.

    Args:
        settings: see there.
        start: folder of the demo's start; made if it is not there.

    Returns:
        Everything that the page shows.
    """
    model = prepare(start, settings.start, _say).model
    fewest = min(settings.micro_batches)
    with tempfile.TemporaryDirectory() as folder:
        kept = train(settings, model, Path(folder), _say)
        exact, probed = [], []
        for one in kept:
            passes = Passes(settings, one, estimator="sequence")
            exact.append(measure_exact(passes, one, fewest))
            probed.append(measure_probes(passes, one, settings))
            _say(f"batch of step {one.step}: measured")
        orders = random_orders(settings.rows, settings.orders, seed=0)
        costs, differences = measure_steps(settings, kept[-1], exact[-1], probed[-1], orders)
        middle = sorted(settings.micro_batches)[len(settings.micro_batches) // 2]
        passes = Passes(settings, kept[-1], estimator="sequence")
        held = {
            "memory": measure_memory(passes, kept[-1], settings, middle),
            "memory_micro_batches": middle,
            **_scope(passes),
        }
    batches = [one.batch for one in kept]
    return {
        **summary(settings, batches, [one.step for one in kept], exact, probed),
        "costs": costs,
        "differences": differences,
        **held,
    }


def summary(
    settings: Settings,
    batches: list[Batch],
    steps: list[int],
    exact: list[Exact],
    probed: list[dict[int, torch.Tensor]],
) -> dict[str, Any]:
    """The figures of the estimates.

    Args:
        settings: see there.
        batches: that were measured.
        steps: of training before each.
        exact: per batch.
        probed: per batch.
    """
    return {
        "batches": [
            {"step": step, **about(batch, its)}
            for step, batch, its in zip(steps, batches, exact, strict=True)
        ],
        "estimates": [*_of_orders(settings, exact), *_of_probes(settings, exact, probed)],
        "exact": quality([its.variances.expand(2, -1, -1) for its in exact], exact),
        "resampled": quality(
            [resampled(its, settings.orders, seed) for seed, its in enumerate(exact)], exact
        ),
        "draws": DRAWS,
        "chosen_probes": DEFAULT_PROBES,
    }


def _of_orders(settings: Settings, exact: list[Exact]) -> list[dict[str, Any]]:
    rows = []
    for count in settings.micro_batches:
        for name in ("micro_batch", "split_half"):
            estimates = []
            for seed, its in enumerate(exact):
                orders = random_orders(settings.rows, settings.orders, seed)
                found = [its.with_units(units(name, order, count)) for order in orders]
                estimates.append(torch.stack(found))
            figures = quality(estimates, exact)
            rows.append({"estimator": name, "micro_batches": count, "probes": 0, **figures})
    return rows


def _of_probes(
    settings: Settings, exact: list[Exact], probed: list[dict[int, torch.Tensor]]
) -> list[dict[str, Any]]:
    return [
        {
            "estimator": "sequence",
            "micro_batches": 0,
            "probes": probes,
            **quality([found[probes] for found in probed], exact),
        }
        for probes in settings.probes
    ]


def _scope(passes: Passes) -> dict[str, int]:
    layout = passes.engine.layout()
    gradients = layout.access(partition(layout.names, "mlp", "module"))
    named = dict(passes.engine.module.named_parameters())
    return {
        "scope_bytes": sum(named[name].numel() * 4 for name in gradients.names),
        "layers": len(layout.linear_layers(gradients)),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--start", type=Path, default=Path("outputs/demo/start"))
    parser.add_argument("--small", action="store_true", help="a minute, to see whether it works")
    for name in ("orders", "seeds", "repeats"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--kept", type=int, nargs="*", help="training steps before the batches")
    given = parser.parse_args()
    names = ("orders", "seeds", "repeats", "kept")
    changes = {name: found for name in names if (found := vars(given)[name]) is not None}
    settings = replace(SMALL if given.small else Settings(), **changes)
    # The passes are small; on a busy machine two threads wait for each other.
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    report = {
        "command": " ".join(["VERL_PLATFORM=cpu python -m benchmarks.estimators", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()} CPU, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} thread(s)",
        "versions": {name: version(name) for name in ("torch", "verl", "transformers")},
        "settings": asdict(settings),
        **measure(settings, given.start),
    }
    dist.destroy_process_group()
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "estimators.json").write_text(json.dumps(report, indent=2) + "\n")
    (given.out / "estimators.md").write_text(page(report))
    print((given.out / "estimators.md").read_text())


if __name__ == "__main__":
    main()
