"""Updates timed in one process, interleaved; their memory and parts in an update of its own."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile
from verl.utils.device import get_device_name

from benchmarks.breakdown import breakdown, make_switchable, ranges
from benchmarks.layouts import VARIANTS, Variant
from benchmarks.memory import peak_memory, peak_of
from benchmarks.patching import borders, replaced, synchronize
from benchmarks.update import Update
from benchmarks.workload import Workload, make_batch, save_model

Make = Callable[[Workload, Path, Variant], Update]
Row = dict[str, Any]


def measure(workload: Workload, names: Sequence[str], repeats: int, make: Make) -> dict[str, Row]:
    """Measure some variants.

    Args:
        workload: model and mini-batch.
        names: of VARIANTS.
        repeats: updates timed per variant, after one that is not and before one that is profiled.
        make: makes an update.

    Returns:
        Per variant what `summary` and `observe` give, or `refused` with the message of the
        installed code.
    """
    rows: dict[str, Row] = {}
    updates: dict[str, Update] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        save_model(workload, model)
        for name in names:
            try:
                updates[name] = _ready(make(workload, model, VARIANTS[name]), workload)
            except ValueError as error:
                if name == "stock":
                    raise
                rows[name] = {"refused": str(error)}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in updates}
    for repeat in range(repeats):
        for name in turned(list(updates), repeat):
            batch = make_batch(workload, seed=_seed(workload, repeat))
            samples[name].append(timed(updates[name], batch))
    batch_seed = _seed(workload, repeats)
    for name, update in updates.items():
        rows[name] = summary(samples[name]) | observe(update, make_batch(workload, batch_seed))
    return {name: rows[name] for name in names}


def _ready(update: Update, workload: Workload) -> Update:
    """The first update makes the optimizer's state, and can still be refused."""
    make_switchable(update.engine)
    update(make_batch(workload, seed=_seed(workload, 0)))
    update.go()
    return update


def turned(names: Sequence[str], repeat: int) -> list[str]:
    """Another one begins in every repeat: who comes first finds the machine as the last left it.

    Args:
        names: of the updates.
        repeat: the how many-th.
    """
    first = repeat % len(names)
    return [*names[first:], *names[:first]]


def _seed(workload: Workload, repeat: int) -> int:
    """Another mini-batch on every replica of the model and in every repeat."""
    ranks = workload.sharing_ranks
    return repeat * (dist.get_world_size() // ranks) + dist.get_rank() // ranks


def timed(update: Update, batch: Any) -> tuple[float, float]:
    """Seconds of one update, and of its statistics, communication and combination."""
    update.come()
    synchronize()
    dist.barrier()
    start = time.perf_counter()
    metrics = update(batch).get("metrics", {})
    synchronize()
    seconds = time.perf_counter() - start
    update.go()
    ours = metrics.get("pcr/seconds")
    return seconds, float(ours.aggregate()) if ours is not None else 0.0


def summary(rows: Sequence[tuple[float, float]]) -> Row:
    """Seconds of every update, their median and quartiles, and the median share that is ours."""
    seconds = [whole for whole, _ in rows]
    low, median, high = min(seconds), statistics.median(seconds), max(seconds)
    if len(seconds) > 2:
        low, median, high = statistics.quantiles(seconds, n=4)
    share = statistics.median(ours / whole for whole, ours in rows)
    rounded = [round(each, 4) for each in seconds]
    return {"median": median, "low": low, "high": high, "share": share, "seconds": rounded}


def observe(update: Update, batch: Any) -> Row:
    """Memory and parts of one update, which is slower for it and is not timed.

    Args:
        update: that has run before.
        batch: a mini-batch.

    Returns:
        `peak` bytes, `unseen` bytes of them whose end the profiler may have missed, seconds of the
        `parts`, and `scope`, the bytes of this rank's share of one gradient in the scope.
    """
    update.come()
    on_cpu = get_device_name() == "cpu"
    with (
        peak_memory() as peak,
        profile(activities=[ProfilerActivity.CPU], profile_memory=on_cpu) as prof,
        ranges(update.engine),
        sized_scope(update.engine) as scope,
        borders("benchmark/update"),
    ):
        update(batch)
    if on_cpu:
        peak = peak_of(prof.profiler.kineto_results.events())
    row = {
        "peak": peak.most,
        "unseen": max(peak.left, 0),
        "parts": breakdown(prof.events() or []),
        "scope": sum(scope),
    }
    update.go()
    return row


@contextmanager
def sized_scope(engine: Any) -> Iterator[list[int]]:
    """Read the bytes of every shard in the scope when the optimizer steps.

    Args:
        engine: of veRL, or of ours.

    Yields:
        What is filled in; nothing for an engine that has no scope.
    """
    sizes: list[int] = []

    def reading(original: Any) -> Any:
        def optimizer_step() -> Any:
            gradients = getattr(engine, "_gradients", None)
            held = [] if gradients is None else gradients.read()
            sizes.extend(shard.nbytes for shard in held if shard is not None)
            return original()

        return optimizer_step

    with replaced(engine, "optimizer_step", reading):
        yield sizes
