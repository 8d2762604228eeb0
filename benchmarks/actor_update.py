"""Seconds and memory of one actor update: stock veRL against each rule, in one process.

    VERL_PLATFORM=cpu python -m benchmarks.actor_update --out docs
    python -m benchmarks.actor_update --out docs --device cuda --model qwen2.5-0.5b

writes `benchmarks.md` and, with every number it is made of, `benchmarks.json` into the folder,
after every layout. With `--layouts` those that are not named stay as they are in the file, if
machine, versions and workload are the same; every table has its date.
Under `torchrun` all ranks take part and the first one writes; what needs two or four ranks is
measured so, and goes into `benchmarks_2_ranks` and `benchmarks_4_ranks`. On a GPU the files are
`benchmarks_cuda_<model>`.
"""

import argparse
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch.distributed as dist

from benchmarks.layouts import LAYOUTS, Layout, gpu_layouts
from benchmarks.machine import check_device, conditions, start_ranks
from benchmarks.measuring import Make, measure
from benchmarks.report import write_pages
from benchmarks.results import add, kept, write
from benchmarks.shapes import SHAPES
from benchmarks.update import make_update
from benchmarks.workload import Workload

PACKAGES = ("torch", "verl", "transformers", "torchjd")


def parser(
    layouts: Mapping[str, Layout], name: str = "benchmarks", device: str = "cpu"
) -> argparse.ArgumentParser:
    """The command line.

    Args:
        layouts: that can be measured; by default those for this number of ranks are.
        name: of the two files, if nothing else is said, and if there is one rank.
        device: that they are for.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    fitting = [key for key, layout in layouts.items() if {1, ranks} & set(layout.ranks)]
    usual = [key for key in fitting if ranks in layouts[key].ranks]
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    suffix = f"_{ranks}_ranks" if ranks > 1 else ""
    found.add_argument("--device", choices=("cpu", "cuda"), default=device)
    found.add_argument("--model", choices=tuple(SHAPES), help="a shape instead of --width etc.")
    found.add_argument("--name", type=_name, help=f"of the two files; {name + suffix} if not said")
    found.add_argument("--repeats", type=int, default=10)
    found.add_argument("--layouts", nargs="*", default=usual or fitting, choices=fitting)
    for field in fields(Workload):
        if field.type in (int, float) and not field.name.endswith("_ranks"):  # the layout says them
            flag = f"--{field.name.replace('_', '-')}"
            found.add_argument(flag, type=field.type, default=argparse.SUPPRESS)
    found.add_argument("--checkpointing", action="store_true", default=argparse.SUPPRESS)
    found.set_defaults(default_name=name + suffix)
    return found


def _name(text: str) -> str:
    """The pages are made of all files of a folder that are called so."""
    if not text.startswith("benchmarks"):
        raise argparse.ArgumentTypeError(f"{text!r}: it begins with 'benchmarks'")
    return text


def workload_of(given: argparse.Namespace) -> Workload:
    """The workload that layouts change.

    Args:
        given: the command line.
    """
    values = vars(given)
    shape = asdict(SHAPES[given.model]) if given.model else {}
    said = {f.name: values[f.name] for f in fields(Workload) if f.name in values}
    return Workload(**{**shape, **said})


def run(
    given: argparse.Namespace,
    command: str,
    layouts: Mapping[str, Layout],
    make: Make,
    packages: Sequence[str] = PACKAGES,
) -> None:
    """Measure and write.

    Args:
        given: the command line.
        command: what started this.
        layouts: by name.
        make: see `measure`.
        packages: whose versions matter.
    """
    workload = workload_of(given)
    said = {name for name in vars(given) if hasattr(workload, name)}
    path = given.out / f"{given.name or given.default_name}.json"
    found = conditions(command, given.repeats, packages)
    report = kept(path, found | {"model": given.model or "", "workload": asdict(workload)})
    for name in given.layouts:
        # What is said on the command line holds for all layouts.
        changes = {k: v for k, v in layouts[name].changes.items() if k not in said}
        changed = replace(workload, **changes)
        results = measure(changed, layouts[name].variants, given.repeats, make)
        add(report, name, changes, results, layouts[name].parts)
        if dist.get_rank() == 0:
            write(path, report, layouts)
            write_pages(given.out)
        gc.collect()  # the engines of one layout are not there while the next is measured
        print(f"{name}: measured", file=sys.stderr, flush=True)
    if dist.get_rank() == 0:
        print(path.with_suffix(".md").read_text())
    dist.destroy_process_group()


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, write."""
    words = sys.argv[1:] if words is None else words
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", default="cpu")
    device.add_argument("--model", default="")
    asked, _ = device.parse_known_args(words)
    if asked.device == "cuda":
        layouts, name = gpu_layouts(asked.model), f"benchmarks_cuda_{asked.model}".rstrip("_")
    else:
        layouts, name = LAYOUTS, "benchmarks"
    arguments = parser(layouts, name)
    given = arguments.parse_args(words)
    try:
        check_device(given.device)
    except ValueError as error:
        arguments.error(str(error))
    run(given, start_ranks("benchmarks.actor_update"), layouts, make_update)


if __name__ == "__main__":
    main()
