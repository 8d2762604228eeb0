"""The estimator that a rule asks for, from what an engine says about its layout."""

from collections.abc import Callable

import torch
from torch import Tensor

from pcr_plugin.blocks import Cells
from pcr_plugin.config import UpdateRule
from pcr_plugin.distributed import is_first_of, sum_over
from pcr_plugin.estimators import (
    Merged,
    MicroBatchEstimator,
    SequenceEstimator,
    SplitHalfEstimator,
)
from pcr_plugin.gradients import Gradients
from pcr_plugin.verl.layout import Layout, MergedUnits

AnyEstimator = MicroBatchEstimator | SplitHalfEstimator | SequenceEstimator


def build_estimator(
    rule: UpdateRule,
    parts: Cells,
    layout: Layout,
    gradients: Gradients,
    device: torch.device,
    *,
    half_shares: Callable[[], tuple[float, float]],
    step: Callable[[], int],
) -> AnyEstimator:
    """Build the estimator of `pcr.variance.estimator`.

    Args:
        rule: the resolved rule.
        parts: the cells of the scope.
        layout: of the engine.
        gradients: access to the gradients of the cells.
        device: where autograd runs.
        half_shares: shares of the two halves of the current mini-batch.
        step: number of the current step.

    Raises:
        ValueError: it cannot read the gradient of a parameter in the scope.
    """
    if rule.settings.variance.estimator == "split_half":
        first = is_first_of(layout.group)
        return SplitHalfEstimator(gradients, len(parts.parts), half_shares, first)
    if rule.settings.variance.estimator == "sequence":
        return SequenceEstimator(
            gradients,
            layout.linear_layers(gradients),
            len(parts.parts),
            probes=rule.probes,
            step=step,
            gradient_scale=layout.gradient_scale,
            device=device,
            ranks=layout.sequence_ranks(),
            in_order=layout.in_order,
        )
    return MicroBatchEstimator(
        gradients,
        len(parts.parts),
        layout.gradient_scale,
        device,
        in_order=layout.in_order,
        counts_units=layout.counts_units,
        merged=_merged(parts, layout.merged),
    )


def _merged(parts: Cells, units: MergedUnits | None) -> Merged | None:
    """What the estimator needs to know of the units that are several ranks'."""
    if units is None or not any(parts.merged):
        return None

    def sum_sizes(own: Tensor) -> Tensor:
        return sum_over(own if units.counts_sizes else torch.zeros_like(own), units.group)

    return Merged(cells=parts.merged, sum_sizes=sum_sizes, counts_units=units.counts_units)
