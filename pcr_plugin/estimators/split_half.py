"""Unit: half of every rank's mini-batch. No hooks, one more gradient kept per objective."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from pcr_plugin.estimators.base import Objective, RunPass, UnitColumns
from pcr_plugin.estimators.products import counted_gramian, without_mix
from pcr_plugin.gradients import Gradients, Local


class SplitHalfEstimator:
    """Computes g = g_A + g_B in two passes and reads the spread from the two halves.

    The halves are independent samples, so products across them are free of the same-sample
    bias of p.s: both gradients are weighted sums of the same scores.

    Args:
        gradients: the host's gradients.
        blocks: number of blocks.
        halves: shares (w_A, w_B) of the current mini-batch, over all ranks.
        is_first: whether this rank is the one that counts the units, which all ranks share.
    """

    def __init__(
        self,
        gradients: Gradients,
        blocks: int,
        halves: Callable[[], tuple[float, float]],
        is_first: bool,
    ) -> None:
        self._gradients = gradients
        self._blocks = blocks
        self._halves = halves
        self._is_first = is_first
        self._first: dict[Objective, Local] = {}
        self._mix = 0.0

    @property
    def is_linear(self) -> bool:
        """Yes: it keeps gradients."""
        return True

    @property
    def seconds(self) -> float:
        """None: the passes run as the host runs them."""
        return 0.0

    @property
    def problem(self) -> str:
        """None: there are no hooks that could miss a gradient."""
        return ""

    def begin(self, mix: float = 0.0) -> None:
        """Forget the last step.

        Args:
            mix: see `Estimator`.
        """
        self._first, self._mix = {}, mix

    def collect(self, objective: Objective, run: RunPass) -> None:
        """Run the halves one after the other; the host then holds their sum."""
        run(0)
        first = self._gradients.take()
        self._gradients.keep_rest(1.0)
        run(1)
        self._gradients.finish_rest()
        self._gradients.add(first, [1.0] * len(first))
        self.keep_first(objective, first)

    def keep_first(self, objective: Objective, first: Local) -> None:
        """Take the gradient of the first half, until `columns`.

        Args:
            objective: the objective.
            first: local shards of g_A, or of p_A + mix s_A.
        """
        self._first[objective] = first

    def measuring(self, *objectives: Objective) -> AbstractContextManager[None]:
        """Nothing has to be watched."""
        return nullcontext()

    def watching(self, objective: Objective) -> AbstractContextManager[None]:
        """Nothing has to be watched."""
        return nullcontext()

    def end_pass(self, objective: Objective, read: Callable[[], Local]) -> None:
        """Nothing to check: `columns` has the gradients."""

    def columns(self, plasticity: Local, stability: Local) -> UnitColumns:
        """The sums of this step from this rank's shards; afterwards the halves are given up.

        Args:
            plasticity: local shards of p + mix s.
            stability: local shards of s.
        """
        shares = self._halves()
        of_p, of_s = Objective.PLASTICITY, Objective.STABILITY
        # Nothing of them outlives the step, after which the host may offload its gradients.
        first = [self._first.pop(objective) for objective in Objective]
        held = counted_gramian(self._gradients, [plasticity, stability, *first], self._blocks)
        gramian = without_mix(held, self._mix)
        whole, half = gramian[:, :2], gramian[:, 2:]
        squares = [
            _squares(whole[:, i, i], whole[:, i, 2 + i], half[:, i, 2 + i], shares)
            for i in Objective
        ]
        # p_A.s_B + p_B.s_A, with g_B = g - g_A.
        across = half[:, of_p, of_s] + half[:, of_s, of_p] - 2 * half[:, of_p, 2 + of_s]
        counted_here = torch.ones_like(across) if self._is_first else torch.zeros_like(across)
        squared = torch.stack(squares, dim=1)
        return UnitColumns(
            squares=squared,
            mass=counted_here,
            units=counted_here * sum(share > 0 for share in shares),
            cross=_between(across, shares),
            totals=torch.full_like(squared, torch.nan),
        )


def _between(across: Tensor, shares: tuple[float, float]) -> Tensor:
    """The mean of the products of p_A / w_A and s_B / w_B and of p_B / w_B and s_A / w_A.

    Each estimates p.s from independent samples; of a single half there is none.
    """
    both = 2 * shares[0] * shares[1]
    return across / both if both else torch.full_like(across, torch.nan)


def _squares(whole: Tensor, across: Tensor, first: Tensor, shares: tuple[float, float]) -> Tensor:
    """||g_A||^2 / w_A + ||g_B||^2 / w_B from g.g, g.g_A and g_A.g_A, all (B,).

    A half without weight has no gradient.
    """
    second = whole - 2 * across + first
    return sum(
        (square / share for square, share in zip((first, second), shares, strict=True) if share),
        start=torch.zeros_like(whole),
    )
