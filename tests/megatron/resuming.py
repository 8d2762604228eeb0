"""One rank of a run that writes a checkpoint, of one that goes on from it, and of other layouts.

`python -m tests.megatron.resuming <rank> <ranks> <folder> <train|resume|other>`
"""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe
from tests.distributed.variants import STOCK
from tests.megatron.cases import SHARDED, WHOLE, MegatronCase
from tests.megatron.records import MegatronRecord
from tests.megatron.shares import PRELOADED
from tests.support.megatron_layout import Layout

RECIPE = Recipe(name="resumed", model="even", batches=("even", "even"), learning_rate=1e-3)
# Where the model is on the CPU, veRL saves it from buffers that only this optimizer makes.
TENSOR = Layout(name="tensor2", tensor=2, distributed_optimizer=True)
LAYOUTS = (TENSOR, SHARDED)
ALONE = replace(WHOLE, distributed_optimizer=True)
Records = dict[str, MegatronRecord]


def _case(layout: Layout, variant: str) -> MegatronCase:
    return MegatronCase(recipe=RECIPE, layout=layout, variant=variant, ranks=(layout.ranks,))


def train(inputs: Inputs, checkpoints: Path, records: Records) -> None:
    """A step, a checkpoint, another step."""
    from tests.megatron.running import build, run_step

    for layout in LAYOUTS:
        for variant in ("robust_beta", STOCK):
            case = _case(layout, variant)
            actor, engine = build(case, inputs)
            record = records[f"{layout.name}-{variant}"] = MegatronRecord()
            record.steps.append(run_step(case, inputs, actor, engine, 0))
            engine.save_checkpoint(str(checkpoints / f"{layout.name}-{variant}"))
            record.steps.append(run_step(case, inputs, actor, engine, 1))


def resume(inputs: Inputs, checkpoints: Path, records: Records) -> None:
    """The second step from the checkpoints: as it was, without averages, from a stock run."""
    from tests.megatron.running import build, run_step

    without = {"load_contents": ["model", "optimizer"]}
    for layout in LAYOUTS:
        for name, source, contents in (
            ("resumed", "robust_beta", None),
            ("without_extra", "robust_beta", without),
            ("on", STOCK, None),
        ):
            case = _case(layout, "robust_beta")
            actor, engine = build(case, inputs, contents=contents)
            folder = str(checkpoints / f"{layout.name}-{source}")
            engine.load_checkpoint(folder, del_local_after_load=False)
            record = records[f"{layout.name}-{name}"] = MegatronRecord()
            record.steps.append(run_step(case, inputs, actor, engine, 1))


def other(inputs: Inputs, checkpoints: Path, records: Records) -> None:
    """One rank alone asks for the checkpoints, and goes on from one of data-parallel ranks."""
    from tests.megatron.running import build, run_step

    for source in ("robust_beta", STOCK):
        _, engine = build(_case(ALONE, "robust_beta"), inputs)
        record = records[f"{TENSOR.name}-{source}"] = MegatronRecord()
        try:
            engine.load_checkpoint(str(checkpoints / f"{TENSOR.name}-{source}"))
        except ValueError as error:
            record.error = f"{type(error).__name__}: {error}"
    case = _case(ALONE, "robust_beta")
    actor, engine = build(case, inputs)
    folder = str(checkpoints / f"{SHARDED.name}-robust_beta")
    engine.load_checkpoint(folder, del_local_after_load=False)
    record = records[SHARDED.name] = MegatronRecord()
    record.steps.append(run_step(case, inputs, actor, engine, 1))


def main(rank: int, ranks: int, folder: Path, phase: str) -> None:
    """Run a phase and save what it recorded."""
    importlib.import_module(PRELOADED)
    torch.set_num_threads(1)
    inputs = Inputs.load(folder.parent)
    records: Records = {}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    run = {"train": train, "resume": resume, "other": other}[phase]
    run(inputs, folder.parent / "checkpoints", records)
    torch.save(records, folder / f"records{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
