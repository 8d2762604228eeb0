"""What an engine of the host tells the update about where its parameters are."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from pcr_plugin.blocks import Block
from pcr_plugin.estimators import SequenceRanks
from pcr_plugin.gradients import Gradients, LinearLayer
from pcr_plugin.verl.extras import Extras


@dataclass(frozen=True, kw_only=True)
class MergedUnits:
    """Parameters whose gradient on a rank holds the tokens of several data-parallel ranks.

    Args:
        names: of these parameters, the same on every rank.
        group: the ranks whose tokens come together.
        counts_sizes: whether this rank is the one that counts its micro-batches among those of
            the group that have the same ones.
        counts_units: whether this rank is the one that counts the units of the group.
    """

    names: Collection[str]
    group: Any
    counts_sizes: bool
    counts_units: bool


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One engine's parameters and ranks.

    Args:
        names: all trainable parameters of the model, the same on every rank.
        access: builds the access to the gradients of these blocks.
        group: all ranks that hold parts or replicas of the model.
        linear_layers: finds the linear layers of these gradients' parameters.
        sequence_ranks: the ranks that share sequences.
        gradient_scale: a gradient that autograd computes on one rank, times this, is its
            contribution to the reduced one.
        in_order: see `MicroBatchEstimator`.
        counts_units: see `MicroBatchEstimator`.
        merged: where units are those of several ranks; `None` where none are.
        extras: what the model does at every pass.
    """

    names: Sequence[str]
    access: Callable[[Sequence[Block]], Gradients]
    group: Any
    linear_layers: Callable[[Any], Sequence[LinearLayer]]
    sequence_ranks: Callable[[], SequenceRanks]
    gradient_scale: float
    in_order: bool = False
    counts_units: bool = True
    merged: MergedUnits | None = None
    extras: Extras = field(default_factory=Extras)
