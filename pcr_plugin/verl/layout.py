"""What an engine of the host tells the update about where its parameters are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import Gradients


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One engine's parameters and ranks.

    Args:
        names: all trainable parameters of the model, the same on every rank.
        access: builds the access to the gradients of these blocks.
        group: all ranks that hold parts or replicas of the model.
        gradient_scale: a gradient that autograd computes on one rank, times this, is its
            contribution to the reduced one.
        in_order: see `MicroBatchEstimator`.
        counts_units: see `MicroBatchEstimator`.
    """

    names: Sequence[str]
    access: Callable[[Sequence[Block]], Gradients]
    group: Any
    gradient_scale: float
    in_order: bool = False
    counts_units: bool = True
