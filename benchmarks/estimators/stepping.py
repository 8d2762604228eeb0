"""Whole updates with every estimator: their seconds, and whether they give what was measured."""

import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.estimators.exact import Exact
from benchmarks.estimators.orders import units
from benchmarks.estimators.passes import Passes
from benchmarks.estimators.settings import Settings
from benchmarks.estimators.training import Kept, engine_batch

Rows = list[dict[str, Any]]


def measure_steps(
    settings: Settings, kept: Kept, exact: Exact, probed: dict[int, Tensor], orders: list[Tensor]
) -> tuple[Rows, dict[str, float]]:
    """Time updates, interleaved, every repeat with another order of the rows.

    Args:
        settings: see there.
        kept: the batch.
        exact: its products.
        probed: see `measure_probes`, of the same batch.
        orders: of the rows.

    Returns:
        Per estimator and number of micro-batches the medians of the update's seconds and of
        `pcr/seconds`; per estimator the largest relative difference between the update's own mean
        V and what `exact` or `probed` say it is.
    """
    variants: dict[tuple[str, int], Passes] = {
        (name, 0): Passes(settings, kept, estimator=name) for name in ("micro_batch", "split_half")
    }
    for probes in settings.probes:
        passes = Passes(settings, kept, estimator="sequence", probes=probes)
        variants["sequence", probes] = passes
    seconds: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    differences = {"micro_batch": 0.0, "split_half": 0.0, "sequence": 0.0}
    step = 0
    for repeat in range(settings.repeats):
        for count in settings.micro_batches:
            for (name, probes), passes in variants.items():
                data = engine_batch(kept.batch, orders[repeat].tolist(), count)
                began = time.perf_counter()
                metrics = passes.step(data)
                taken = (time.perf_counter() - began, metrics["pcr/seconds"])
                seconds.setdefault((name, probes, count), []).append(taken)
                if name == "sequence":
                    expected = probed[probes][step]
                else:
                    expected = exact.with_units(units(name, orders[repeat], count))
                differences[name] = max(differences[name], _difference(metrics, expected))
            step += 1
    rows = [
        {
            "estimator": name,
            "probes": probes,
            "micro_batches": count,
            "seconds": statistics.median(whole for whole, _ in taken[1:]),
            "share": statistics.median(ours / whole for whole, ours in taken[1:]),
        }
        for (name, probes, count), taken in seconds.items()
    ]
    return rows, differences


def _difference(metrics: dict[str, float], expected: Tensor) -> float:
    found = torch.tensor([metrics["pcr/var_pla"], metrics["pcr/var_sta"]], dtype=torch.float64)
    difference = float((found / expected.mean(dim=0) - 1).abs().max())
    assert math.isfinite(difference), metrics
    return difference
