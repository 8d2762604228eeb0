"""The collectives of an update with FSDP2, from the code.

FSDP2 has one group of parameters per decoder layer and one of the rest; embeddings that are not
tied have one each. In every micro-batch it gathers every group for the forward and
again for every backward pass, and reduces it after that. Deferred, what it reduces waits for the
last micro-batch of a pass; with a shared forward pass it does not wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.scaling.collectives import Counts
from benchmarks.shapes import Shape

HOST, PASSES, OURS = "stock", "second gradient", "statistics"
PROBES = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often a variant runs over the mini-batch.

    Args:
        forwards: forward passes over all micro-batches.
        backwards: backward passes over all micro-batches.
        reductions: of whole gradients, in every micro-batch unless they are deferred.
        scope_reductions: of gradients in the scope alone.
        shared: one forward pass for both gradients; nothing is deferred.
        asks: whether ranks agree in every micro-batch on who needs its surrogate's backward pass.
        batches: calls of veRL's loop, of which each sums the number of tokens over the ranks, and
            reduces once where that is deferred.
        halves: whether the sizes of the halves are summed.
        probes: whether there are probes to be summed.
    """

    forwards: int = 2
    backwards: int = 2
    reductions: int = 2
    scope_reductions: int = 0
    shared: bool = False
    asks: bool = False
    batches: int = 2
    halves: bool = False
    probes: bool = False


def _shared(*, combined: bool = False, **others: Any) -> Plan:
    """Two backward passes in every micro-batch, reduced at once; combined, s in the scope alone."""
    whole, scope = (1, 1) if combined else (2, 0)
    times = {"forwards": 1, "backwards": 2, "reductions": whole, "scope_reductions": scope}
    return Plan(**{"batches": 1, **times, **others}, shared=True, asks=not combined)


STOCK = Plan(forwards=1, backwards=1, reductions=1, batches=1)
PLANS = {
    "stock": STOCK,
    "two_forward": Plan(),
    "two_forward, split_half": Plan(batches=4, halves=True),
    "two_forward, sequence": Plan(probes=True),
    "shared_forward": _shared(),
    "shared_forward, split_half": _shared(batches=2, halves=True),
    "shared_forward, sequence": _shared(probes=True),
    "shared_forward, split_half, combined": _shared(combined=True, batches=2, halves=True),
    "shared_forward, sequence, combined": _shared(combined=True, probes=True),
}


@dataclass(frozen=True, kw_only=True)
class Collective:
    """Equal collectives of one step.

    Args:
        kind: as in `Counts`.
        bytes: of the whole tensor.
        times: per step.
        whose: HOST, PASSES or OURS.
    """

    kind: str
    bytes: int
    times: int
    whose: str


def groups(shape: Shape) -> list[int]:
    """Parameters of every group that FSDP2 gathers at once.

    Args:
        shape: of the model.
    """
    layers = [shape.layer_parameters] * shape.layers
    embedding = shape.vocabulary * shape.width
    if shape.tied:
        return [*layers, embedding + shape.width]
    return [*layers, embedding, embedding, shape.width]


def collectives(
    shape: Shape,
    plan: Plan,
    micro_batches: int,
    *,
    gathered: int = 4,
    reduced: int = 4,
    deferred: bool = False,
) -> list[Collective]:
    """The collectives of one update, with `pcr.scope=mlp` and `pcr.block=module`.

    Args:
        shape: of the model.
        plan: of the variant.
        micro_batches: per rank and mini-batch.
        gathered: bytes of a number in an all-gather.
        reduced: bytes of a number in a reduce-scatter.
        deferred: `use_no_sync_for_gradient_accumulation`.
    """
    found = []
    host = 1 if deferred else micro_batches
    whole = plan.batches if deferred and not plan.shared else plan.reductions * micro_batches
    for size in groups(shape):
        found += _both("all-gather", size * gathered, *_gathers(plan, micro_batches))
        found += _both("reduce-scatter", size * reduced, host, whole - host)
    scope = plan.scope_reductions * micro_batches * shape.layers
    found += _both("reduce-scatter", shape.mlp_parameters * reduced, 0, scope)
    found += _both("all-reduce", 8, 1, plan.batches - 1)  # the number of tokens
    # The norm of the gradient, of every tensor by itself.
    found += [Collective(kind="all-reduce", bytes=4 * shape.tensors, times=1, whose=HOST)]
    if plan != STOCK:
        found += _of_statistics(shape, plan)
    asked = micro_batches if plan.asks else 0
    found.append(Collective(kind="all-reduce", bytes=8, times=asked, whose=OURS))
    return [one for one in found if one.times]


def _gathers(plan: Plan, micro_batches: int) -> tuple[int, int]:
    """The host's, and those that the second gradient adds."""
    return 2 * micro_batches, (plan.forwards + plan.backwards - 2) * micro_batches


def _both(kind: str, size: int, host: int, added: int) -> list[Collective]:
    return [
        Collective(kind=kind, bytes=size, times=host, whose=HOST),
        Collective(kind=kind, bytes=size, times=added, whose=PASSES),
    ]


def _of_statistics(shape: Shape, plan: Plan) -> list[Collective]:
    # A row of eleven numbers for every block; a layer's MLP is one.
    tables = [shape.layers * 11 * 8]
    if plan.halves:
        tables.append(2 * 3 * 8)  # sequences, tokens, and the tokens that veRL divides by
    if plan.shared:
        tables.append(2 * 8)  # whether all ranks can share a forward pass
    if plan.probes:
        # Of gate, up and down all pairs of directions; once for either objective.
        tables += [shape.layers * 3 * PROBES**2 * 8] * 2
    return [Collective(kind="all-reduce", bytes=size, times=1, whose=OURS) for size in tables]


def counts_of(found: Sequence[Collective]) -> Counts:
    """The same in the form of a count.

    Args:
        found: what `collectives` gives.
    """
    counts: Counts = Counts()
    for one in found:
        counts[one.kind, one.bytes] += one.times
    return counts
