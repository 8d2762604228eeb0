"""Ranks that have parts of the same sequences' probes."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SequenceRanks:
    """How the ranks that have parts of the probes put them together.

    Args:
        sum_parts: over the ranks that have parts of the same rows: tokens or features.
        sum_all: over these and all that have other rows, of the same parameters.
        counts_rows: whether this rank is the one that counts the rows that it shares.
        counts_sums: whether it is the one that counts what `sum_all` gives.
        counts_units: whether it is the one that counts its rows as units of the whole model.
    """

    sum_parts: Callable[[Tensor], Tensor]
    sum_all: Callable[[Tensor], Tensor]
    counts_rows: bool
    counts_sums: bool
    counts_units: bool
