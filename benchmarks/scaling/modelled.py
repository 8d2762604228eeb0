"""Tables for more GPUs than were at hand: bytes and seconds of a step's communication."""

from collections.abc import Sequence
from itertools import product

from benchmarks.scaling.expected import HOST, OURS, PASSES, PLANS, Collective, collectives
from benchmarks.scaling.network import Network, total
from benchmarks.scaling.sizes import GPUS, MICRO_BATCHES, MODELS
from benchmarks.shapes import SHAPES, Shape

# Of matrix products on one GPU, as bf16 training reaches it; assumed.
FLOPS = 400e12
_PROBED = "two_forward, sequence"


def step(shape: Shape, update: str, *, deferred: bool = False) -> Sequence[Collective]:
    """The collectives of an update as veRL runs on GPUs: bf16 gathered, float32 reduced.

    Args:
        shape: of the model.
        update: a name of PLANS.
        deferred: `use_no_sync_for_gradient_accumulation`.
    """
    plan = PLANS[update]
    return collectives(shape, plan, MICRO_BATCHES, gathered=2, reduced=4, deferred=deferred)


def passes_table(network: Network) -> str:
    """What the host sends, and what ways to two gradients add to it.

    Args:
        network: assumed.
    """
    head = ["model", "GPUs", "stock", "two passes add", "a shared forward pass adds"]
    lines = _head([*head, "combined it adds"])
    added = ("two_forward", "shared_forward", "shared_forward, sequence, combined")
    for name, ranks in product(MODELS, GPUS):
        parts = [total(network, step(SHAPES[name], "stock"), ranks, HOST)]
        parts += [total(network, step(SHAPES[name], each), ranks, PASSES) for each in added]
        cells = [f"{sent / 1e9:.1f} GB, {seconds:.2f} s" for _, sent, seconds in parts]
        lines.append(f"| {name} | {ranks} | {' | '.join(cells)} |")
    return "\n".join(lines)


def statistics_table(network: Network) -> str:
    """What the statistics send.

    Args:
        network: assumed.
    """
    updates = {
        "of two passes": "two_forward",
        "of a shared forward pass": "shared_forward",
        "of two passes with probes": _PROBED,
    }
    lines = _head(["model", "GPUs", *(f"{words}: KB, µs" for words in updates), "most / stock"])
    for name, ranks in product(MODELS, GPUS):
        host = total(network, step(SHAPES[name], "stock"), ranks, HOST)
        ours = [total(network, step(SHAPES[name], each), ranks, OURS) for each in updates.values()]
        cells = [f"{sent / 1e3:.1f}, {seconds * 1e6:.0f}" for _, sent, seconds in ours]
        most = max(seconds for *_, seconds in ours) / host[2]
        lines.append(f"| {name} | {ranks} | {' | '.join(cells)} | {100 * most:.3f} % |")
    return "\n".join(lines)


def deferred_table(network: Network) -> str:
    """Whether two passes that wait, or a shared forward pass that does not, take less time.

    Args:
        network: assumed.
    """
    head = ["model", "GPUs", "stock, deferred", "two passes add", "a shared forward pass adds"]
    lines = _head([*head, "tokens of a rank for which both take as long"])
    parts = (("stock", HOST), ("two_forward", PASSES), ("shared_forward", PASSES))
    for name, ranks in product(MODELS, GPUS):
        shape = SHAPES[name]
        host, waiting, at_once = (
            total(network, step(shape, update, deferred=True), ranks, whose)[2]
            for update, whose in parts
        )
        # A forward pass is two operations per parameter and token.
        tokens = (at_once - waiting) * FLOPS / (2 * shape.parameters)
        cells = f"{host:.2f} s | {waiting:.2f} s | {at_once:.2f} s | {tokens:,.0f}"
        lines.append(f"| {name} | {ranks} | {cells} |")
    return "\n".join(lines)


def _head(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |", "|" + "---|" * len(cells)]
