"""One rank: counts collectives and times statistics. `python -m ... <rank> <ranks> <folder>`."""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.layouts import DEFERRED, VARIANTS
from benchmarks.measuring import sized_scope, timed
from benchmarks.scaling.collectives import counted
from benchmarks.scaling.sizes import COUNTED, REPEATS, TIMED
from benchmarks.update import make_update
from benchmarks.workload import Workload, make_batch, save_model


def main(rank: int, ranks: int, folder: Path, small: bool) -> None:
    """Measure and, on the first rank, save.

    Args:
        rank: of this process.
        ranks: number of processes.
        folder: for the rendezvous and the results.
        small: the counts alone.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    try:
        found = {"counts": [_counts(workload, name) for workload, name in COUNTED]}
        if not small:
            found["seconds"] = [_seconds(workload) for workload in TIMED]
        if rank == 0:
            (folder / "found.json").write_text(json.dumps(found))
    finally:
        dist.destroy_process_group()


def _counts(workload: Workload, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "layers": workload.layers,
        "tied": workload.tied,
        "deferred": workload.engine == DEFERRED,
        "update": name,
    }
    try:
        update = _update(workload, name)
        update(_batch(workload, 0))
    except ValueError as error:
        return row | {"refused": str(error)}
    found = counted(lambda: update(_batch(workload, 1)))
    return row | {"counts": [[kind, size, times] for (kind, size), times in found.items()]}


def _seconds(workload: Workload) -> dict[str, Any]:
    update = _update(workload, "two_forward")
    taken = [timed(update, _batch(workload, repeat))[1] for repeat in range(REPEATS + 1)]
    with sized_scope(update.engine) as scope:
        update(_batch(workload, 0))
    assert sum(scope) > 0
    parameters = sum(scope) // torch.float32.itemsize
    sizes = {"layers": workload.layers, "width": workload.width, "scope_of_a_rank": parameters}
    return {**sizes, "seconds": statistics.median(taken[1:])}


def _update(workload: Workload, name: str) -> Any:
    with tempfile.TemporaryDirectory() as model:
        save_model(workload, Path(model))
        return make_update(workload, Path(model), VARIANTS[name])


def _batch(workload: Workload, repeat: int) -> Any:
    return make_batch(workload, seed=repeat * dist.get_world_size() + dist.get_rank())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), "small" in sys.argv[4:])
