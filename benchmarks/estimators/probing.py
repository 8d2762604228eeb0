"""Many draws of the random directions in one pair of passes."""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.estimators.passes import Passes
from benchmarks.estimators.settings import Settings
from benchmarks.estimators.training import Kept, engine_batch
from pcr_plugin.blocks import cells, partition
from pcr_plugin.estimators import Objective, SequenceEstimator
from pcr_plugin.statistics import TokenRows, variance_of_total
from pcr_plugin.verl.units import sizes_of_rows


def measure_probes(passes: Passes, kept: Kept, settings: Settings) -> dict[int, Tensor]:
    """V from every number of probes and every seed.

    The estimators of one number of probes look on in the same passes; each draws the directions
    of another step.

    Args:
        passes: with the batch's policy.
        kept: the batch.
        settings: probes and seeds.

    Returns:
        Number of probes to (seeds, B, 2).
    """
    found = {}
    for probes in settings.probes:
        estimators = [new_estimator(passes, probes, 1 + seed) for seed in range(settings.seeds)]
        data = engine_batch(kept.batch, range(settings.rows), min(settings.micro_batches))
        look_on(passes, data, estimators)
        found[probes] = torch.stack([_variances(estimator) for estimator in estimators])
    return found


def measure_memory(
    passes: Passes, kept: Kept, settings: Settings, micro_batches: int
) -> dict[int, int]:
    """Bytes that an estimator holds in tensors before the last backward pass of an objective.

    Args:
        passes: with the batch's policy.
        kept: the batch.
        settings: probes.
        micro_batches: of the batch.

    Returns:
        Number of probes to bytes.
    """
    data = engine_batch(kept.batch, range(settings.rows), micro_batches)

    def held(estimators: Sequence[SequenceEstimator]) -> int:
        found = []

        def measure(announced: int) -> None:
            if announced == micro_batches * len(Objective):
                found.append(_bytes_of_tensors())

        look_on(passes, data, estimators, measure)
        return found[0]

    bare = held([])
    return {probes: held([new_estimator(passes, probes, 1)]) - bare for probes in settings.probes}


def new_estimator(passes: Passes, probes: int, step: int) -> SequenceEstimator:
    """The estimator as the engine builds it, for the directions of one step.

    Args:
        passes: of the engine.
        probes: number K.
        step: that seeds them.
    """
    engine = passes.engine
    layout = engine.layout()
    parts = cells(partition(layout.names, "mlp", "module"), ())
    gradients = layout.access(parts.parts)
    return SequenceEstimator(
        gradients,
        layout.linear_layers(gradients),
        len(parts.parts),
        probes=probes,
        step=lambda: step,
        gradient_scale=layout.gradient_scale,
        device=torch.device("cpu"),
        ranks=layout.sequence_ranks(),
    )


def look_on(
    passes: Passes,
    data: Any,
    estimators: Sequence[SequenceEstimator],
    after_forward: Callable[[int], None] = lambda announced: None,
) -> None:
    """Run both objectives' passes with some estimators.

    Args:
        passes: of the engine.
        data: for the engine.
        estimators: that are told of every micro-batch.
        after_forward: called before every backward pass with the number of those so far, this one
            included.
    """
    announced = 0

    def announce(micro_batch: Any) -> None:
        nonlocal announced
        weights = sizes_of_rows(micro_batch, passes.actor.loss_agg_mode)
        tokens = TokenRows.of(passes.engine.rows_of_tokens(micro_batch), len(weights))
        for estimator in estimators:
            estimator.start_micro_batch(tokens, weights)
        announced += 1
        after_forward(announced)

    with passes.engine.train_mode():
        for objective in reversed(Objective):
            _nested(estimators, objective, partial(passes.run, objective, data, announce))


def _nested(
    estimators: Sequence[SequenceEstimator], objective: Objective, run: Callable[[], None]
) -> None:
    """Every estimator's `collect` around that of the next; the passes run once, inside all."""
    if not estimators:
        run()
        return
    first, *others = estimators
    first.collect(objective, lambda _: _nested(others, objective, run))


def _variances(estimator: SequenceEstimator) -> Tensor:
    """(B, 2), as the update computes them on one rank."""
    if estimator.problem:
        raise RuntimeError(estimator.problem)
    columns = estimator.columns([], [])
    return torch.stack(
        [
            variance_of_total(
                columns.squares[:, i] * columns.mass, columns.totals[:, i], columns.units
            )
            for i in Objective
        ],
        dim=1,
    )


def _bytes_of_tensors() -> int:
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, torch.nn.Parameter):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
