"""What the update asks of an estimator."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import NamedTuple, Protocol

from torch import Tensor

from pcr_plugin.gradients import Local

# Runs one objective's forward and backward pass on the whole mini-batch (None) or on a half.
RunPass = Callable[[int | None], None]


class Objective(IntEnum):
    """Row of the Gramian, and column of every per-objective statistic."""

    PLASTICITY = 0
    STABILITY = 1


class UnitColumns(NamedTuple):
    """This rank's share of an estimator's sums; adding them over the ranks completes them.

    One row per cell: a block, or the part of one whose gradients come in the same units.

    Attributes:
        squares: (C, 2) sum_m ||g_m||^2 / n_m of p and of s, where n_m is the unit's number of
            tokens or sequences.
        mass: (C,) sum_m n_m; times `squares` this gives sum_m ||g_m||^2 / w_m.
        units: (C,) number of units with n_m > 0.
        cross: (C,) unbiased estimate of p.s from independent units, or NaN.
        totals: (C, 2) ||sum_m g_m||^2 measured as `squares` is, so that what both have of the whole
            gradient cancels; NaN where that is the Gramian's own.
    """

    squares: Tensor
    mass: Tensor
    units: Tensor
    cross: Tensor
    totals: Tensor


class Estimator(Protocol):
    """Measures the spread of a gradient's units while the host computes it."""

    @property
    def is_linear(self) -> bool:
        """Whether what it keeps of p can be had from what it keeps of p + mix s and of s."""
        ...

    @property
    def seconds(self) -> float:
        """Time that this step's passes have spent in the estimator."""
        ...

    @property
    def problem(self) -> str:
        """Why this step's sums would be wrong, with the remedy; empty if they are right.

        Not an error of `collect`: other ranks would wait in a collective for the one that raised.
        """
        ...

    def begin(self, mix: float = 0.0) -> None:
        """Forget the last step.

        Args:
            mix: in this step, what is computed and given as the plasticity gradient is p + mix s.
                Not 0 only where `is_linear`.
        """
        ...

    def collect(self, objective: Objective, run: RunPass) -> None:
        """Run an objective's passes; afterwards the host holds the whole gradient."""
        ...

    def measuring(self, *objectives: Objective) -> AbstractContextManager[None]:
        """Around one run over the mini-batch that computes these objectives' gradients."""
        ...

    def watching(self, objective: Objective) -> AbstractContextManager[None]:
        """Around a backward pass of this objective, in `measuring`."""
        ...

    def end_pass(self, objective: Objective, read: Callable[[], Local]) -> None:
        """After an objective's last backward pass, in `measuring`.

        Args:
            objective: the objective.
            read: this rank's shards of its whole gradient.
        """
        ...

    def columns(self, plasticity: Local, stability: Local) -> UnitColumns:
        """The sums of this step, of p and s, given this rank's shards of p + mix s and of s."""
        ...
