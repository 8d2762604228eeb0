"""One rank of a run that is killed, of one that goes on, and of one with other ranks.

`python -m tests.distributed.resuming <rank> <ranks> <folder> <train|resume|other>`
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pcr_plugin.verl import checkpoint as state_file
from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe
from tests.distributed.records import CaseRecord
from tests.distributed.running import build, run_step
from tests.distributed.variants import STOCK

STRATEGIES = ("fsdp2", "fsdp")
RECIPES = {
    strategy: Recipe(
        name=strategy,
        # Small enough a step for the blocks to be in conflict in the second, too.
        batches=("second", "mixed", "second"),
        learning_rate=1e-3,
        strategy=strategy,
        # A process finds out before its first step whether signals can share recomputations.
        checkpointing=strategy == "fsdp2",
    )
    for strategy in STRATEGIES
}
MICRO_BATCHES = 3  # of a rank: it has 6 rows, and 2 at a time
Records = dict[str, CaseRecord]


def train(inputs: Inputs, checkpoints: Path, records: Records, save: Any) -> None:
    """A step, a checkpoint, another step; then the process dies in the middle of the third.

    The engine on which it dies is the last one: one with a rule, in its second forward pass.
    """
    for strategy, recipe in RECIPES.items():
        for variant in (STOCK, "robust_sequences", "robust"):
            actor, engine = build(Case(recipe=recipe, variant=variant), inputs)
            record = records[f"{strategy}-{variant}"] = CaseRecord()
            record.steps.append(run_step(recipe, inputs, actor, engine, 0))
            engine.save_checkpoint(str(checkpoints / f"{strategy}-{variant}"))
            dist.barrier()
            record.steps.append(run_step(recipe, inputs, actor, engine, 1))
    assert engine._update.average.state_dict()["sums"]
    save()
    forward, calls = engine.forward_step, 0

    def die(*positional: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == MICRO_BATCHES + 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(*positional, **named)

    engine.forward_step = die
    run_step(recipe, inputs, actor, engine, 2)


def resume(inputs: Inputs, checkpoints: Path, records: Records) -> None:
    """The second step from the checkpoints: as it was, with the rule off, and on."""
    without = {"load_contents": ["model", "optimizer"]}
    if dist.get_rank() > 0:
        # Folders may be local to machines: only the first rank has our file.
        state_file.read = _not_here
    for strategy, recipe in RECIPES.items():
        for name, variant, source, contents in (
            ("resumed", "robust", "robust", None),
            ("resumed_sequences", "robust_sequences", "robust_sequences", None),
            ("off", STOCK, "robust", None),
            ("off_sum", "sum", "robust", None),
            ("on", "robust", STOCK, None),
            ("without_extra", "robust", "robust", without),
        ):
            actor, engine = build(Case(recipe=recipe, variant=variant), inputs, contents=contents)
            engine.load_checkpoint(
                str(checkpoints / f"{strategy}-{source}"), del_local_after_load=False
            )
            record = records[f"{strategy}-{name}"] = CaseRecord()
            record.steps.append(run_step(recipe, inputs, actor, engine, 1))
    for name, rank, function in (("second_checks", 1, "check_ranks"), ("first_reads", 0, "read")):
        _, engine = build(Case(recipe=recipe, variant="robust"), inputs)
        records[name] = CaseRecord()
        usual = getattr(state_file, function)
        if dist.get_rank() == rank:
            setattr(state_file, function, _not_readable)
        try:
            engine.load_checkpoint(str(checkpoints / f"{strategy}-robust"))
        except (RuntimeError, ValueError) as error:
            records[name].error = f"{type(error).__name__}: {error}"
        setattr(state_file, function, usual)
    full = checkpoints / "full"
    if dist.get_rank() == 0:
        full.mkdir()
        # Linux's own disk without space, where our part goes.
        (full / "pcr_state.tmp").symlink_to("/dev/full")
    dist.barrier()
    records["full"] = CaseRecord()
    try:
        engine.save_checkpoint(str(full))
    except (OSError, RuntimeError) as error:
        records["full"].error = f"{type(error).__name__}: {error}"
    model_only = {"save_contents": ["model"]}
    _, engine = build(Case(recipe=recipe, variant="robust"), inputs, contents=model_only)
    engine.save_checkpoint(str(checkpoints / "model_only"))


def _not_here(folder: str) -> str | None:
    raise FileNotFoundError(folder)


def _not_readable(folder: str, *rest: Any) -> None:
    raise ValueError(f"{folder} is not readable")


def other(inputs: Inputs, checkpoints: Path, records: Records) -> None:
    """Another number of ranks asks for the checkpoint."""
    for strategy, recipe in RECIPES.items():
        _, engine = build(Case(recipe=recipe, variant="robust"), inputs)
        record = records[strategy] = CaseRecord()
        try:
            engine.load_checkpoint(str(checkpoints / f"{strategy}-robust"))
        except ValueError as error:
            record.error = f"{type(error).__name__}: {error}"


def main(rank: int, ranks: int, folder: Path, phase: str) -> None:
    """Run a phase and save what it recorded."""
    torch.set_num_threads(1)
    inputs = Inputs.load(folder.parent)
    checkpoints = folder.parent / "checkpoints"
    records: Records = {}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )

    def save() -> None:
        torch.save(records, folder / f"records{rank}.pt")
        dist.barrier()

    if phase == "train":
        train(inputs, checkpoints, records, save)
    else:
        {"resume": resume, "other": other}[phase](inputs, checkpoints, records)
        save()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
