"""One optimizer step's two gradients, from the first pass to the combined gradient.

Phases: 1. the passes, which leave two gradients, 2. statistics, 3. rule, 4. combine. The host
supplies the passes, access to its gradients and the sum over ranks; clipping and the optimizer stay
the host's and see the combined gradient alone.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from pcr_plugin.blocks import Block
from pcr_plugin.config import UpdateRule
from pcr_plugin.estimators import Estimator, Objective, UnitColumns, counted_gramian, without_mix
from pcr_plugin.gradients import Gradients, RandomState, combine_
from pcr_plugin.metrics import PREFIX, block_metrics, step_metrics
from pcr_plugin.passes import GradientPair, Passes
from pcr_plugin.rules import BlockWeights, decide
from pcr_plugin.rules.conflict import has_stability
from pcr_plugin.statistics import (
    VarianceAverage,
    scaled_variances,
    variance_of_total,
)
from pcr_plugin.weightings import load

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
# Columns of the table that ranks sum up: p.p, p.s and s.s; two sums of squares; mass; units; cross;
# two totals; failures.
_WIDTHS = [3, 2, 1, 1, 1, 2, 1]
# What of a Gramian, and of two variances, is of p.
_OF_P = torch.tensor([[True, True], [True, False]])
_FIRST = torch.tensor([True, False])


class Statistics(NamedTuple):
    """Whole-block statistics of one step, on the CPU, equal on every rank.

    Attributes:
        gramian: (B, 2, 2).
        variances: (B, 2) V of p and of s; NaN with fewer than two units.
        cross: (B,) p.s across independent units, or NaN.
    """

    gramian: Tensor
    variances: Tensor
    cross: Tensor


class TwoGradientUpdate:
    """Runs the phases and keeps what lives longer than a step.

    Args:
        rule: the resolved rule.
        blocks: the scope's blocks.
        gradients: the host's gradients.
        estimator: measures the variances.
        sum_over_ranks: sums a (C, k) table over all ranks of the model.
        device_module: `torch.cuda` or what stands for it, for the random state.
        loss_scale: what the host multiplies both losses by in this step (fp16).
        from_first_rank: calls a function on the first of the ranks that `sum_over_ranks` spans,
            and gives all of them its result.
        gather: the lists of all these ranks, one after the other.
        block_of_cell: the block of every cell, where the blocks have been taken apart into cells
            with units of their own; `gradients` and `estimator` then know the cells as blocks.

    Raises:
        ValueError: the rule names a weighting that cannot be had.
    """

    def __init__(
        self,
        rule: UpdateRule,
        blocks: Sequence[Block],
        gradients: Gradients,
        estimator: Estimator,
        sum_over_ranks: Callable[[Tensor], Tensor],
        device_module: Any,
        *,
        loss_scale: Callable[[], float] = lambda: 1.0,
        from_first_rank: Callable[[Callable[[], Tensor]], Tensor],
        gather: Callable[[list[str]], list[str]],
        block_of_cell: Sequence[int] | None = None,
    ) -> None:
        self.rule = rule
        members = {block.name: block.members for block in blocks}
        self.average = VarianceAverage(rule.ema, members)
        self._names = [block.name for block in blocks]
        self._labels = _unique_labels(blocks)
        self._block_of_cell = list(range(len(blocks)) if block_of_cell is None else block_of_cell)
        self._gradients = gradients
        self._estimator = estimator
        self._sum_over_ranks = sum_over_ranks
        self._device_module = device_module
        self._loss_scale = loss_scale
        self._from_first_rank = from_first_rank
        self._gather = gather
        self._weighting = None if rule.weighting is None else load(rule.weighting)
        self._warned = False
        self.begin_step()

    def begin_step(self) -> None:
        """Mark the state that `forget_step` goes back to.

        `run` does it; the host does it for a step without a measurement (rule `observe`).
        """
        self._before = self.average.state_dict()

    def forget_step(self) -> None:
        """Take the last step's variances back out: the optimizer skipped it."""
        self.average.load_state_dict(self._before)

    def observing(self, measure: Callable[[], Result]) -> Result:
        """Run a measurement after which the random stream is where it was before.

        Args:
            measure: does what `run` does.
        """
        random_state = RandomState.capture(self._device_module)
        result = measure()
        random_state.restore()
        return result

    def run(self, beta: float, passes: Passes) -> dict[str, float]:
        """Compute both gradients and leave the combined one with the host.

        With the rule `observe` both are measured and what the host then holds is not an update: the
        caller clears it and runs its own.

        Args:
            beta: the KL coefficient.
            passes: computes them.

        Returns:
            The step's metrics.

        Raises:
            RuntimeError: on every rank, when the passes or the estimator of any have noticed that
                what they have would be wrong.
        """
        self.begin_step()
        pair = passes(beta)

        # What the passes have queued on the device is not ours to be counted.
        self._wait_for_device()
        start = time.perf_counter()
        statistics = self._statistics(pair)
        decision = self._decide(statistics, beta)
        if not self.rule.observes:
            weights = [(p, q) for p, q in decision.weights.tolist()]
            of_cells = [weights[block] for block in self._block_of_cell]
            combine_(self._gradients, pair.stability, of_cells, pair.mix)
        if pair.added is not None:
            self._gradients.add(pair.added, [1.0] * len(pair.added))
        metrics = self._metrics(statistics, decision)
        # The combination is only queued; the host itself waits a little later, for the norm.
        self._wait_for_device()
        metrics[PREFIX + "seconds"] = time.perf_counter() - start + self._estimator.seconds
        return metrics

    def _wait_for_device(self) -> None:
        getattr(self._device_module, "synchronize", lambda: None)()

    def _statistics(self, pair: GradientPair) -> Statistics:
        held = [self._gradients.read(), pair.stability]
        gramian = counted_gramian(self._gradients, held, len(self._block_of_cell))
        problem = pair.problem or self._estimator.problem
        columns = self._estimator.columns(*held)
        table = _pack(gramian, columns, failed=bool(problem))
        # One collective and one copy to the host; from here on it is arithmetic on few numbers.
        table = self._sum_over_ranks(table).cpu()
        if table[:, -1].any():
            raise RuntimeError("\n".join(self._gather([problem] if problem else [])))
        gramian, columns = _unpack(table, self._loss_scale(), pair.mix)
        variances = torch.stack(
            [
                variance_of_total(
                    columns.squares[:, i] * columns.mass, columns.totals[:, i], columns.units
                )
                for i in Objective
            ],
            dim=1,
        )
        nothing = _is_rounding(gramian, pair)
        gramian = torch.where(nothing[:, None, None] & _OF_P, 0.0, gramian)
        variances = torch.where(nothing[:, None] & _FIRST, 0.0, variances)
        cross = torch.where(nothing & ~torch.isnan(columns.cross), 0.0, columns.cross)
        return Statistics(*map(self._by_block, (gramian, variances, cross)))

    def _by_block(self, of_cells: Tensor) -> Tensor:
        """The sum over every block's cells, of which each has parameters of its own."""
        index = torch.tensor(self._block_of_cell)
        shape = (len(self._names), *of_cells.shape[1:])
        return of_cells.new_zeros(shape).index_add(0, index, of_cells)

    def _decide(self, statistics: Statistics, beta: float) -> BlockWeights:
        gramian = statistics.gramian
        valid = has_stability(gramian) & torch.isfinite(gramian).flatten(1).all(dim=1)
        averaged = self.average.update(self._names, statistics.variances, valid)
        # With enough units V is unknown only where gradients are not finite; veRL reports that.
        unknown = torch.isnan(averaged).any(dim=1) & torch.isfinite(gramian).flatten(1).all(dim=1)
        if self.rule.needs_variance and bool(unknown.any()) and not self._warned:
            self._warned = True
            logger.warning(
                "Fewer than two units in this mini-batch: no variance, so blocks get p + beta s "
                "(counted in pcr/degenerate_blocks). "
                "Smaller micro-batches, or sequences as units (pcr.variance.estimator), give more."
            )
        settings = self.rule.settings
        return decide(
            self.rule.name,
            gramian,
            scaled_variances(averaged, gramian, beta, self.rule.scale),
            beta,
            fixed_alpha=settings.alpha,
            gate=settings.gate,
            min_cosine=settings.min_cosine,
            stability_floor=self.rule.stability_floor,
            weigh=None if self._weighting is None else partial(self._weigh, self._weighting),
        )

    def _weigh(self, weighting: Callable[[Tensor], Tensor], gramians: Tensor) -> Tensor:
        """Weights from the first rank alone: a solver need not give the same bits everywhere."""
        return self._from_first_rank(lambda: weighting(gramians))

    def _metrics(self, statistics: Statistics, decision: BlockWeights) -> dict[str, float]:
        gramian, variances, cross = statistics
        metrics = step_metrics(gramian, variances, cross, decision)
        if self.rule.settings.log_blocks:
            metrics |= block_metrics(self._labels, gramian, decision)
        return metrics


def _pack(gramian: Tensor, columns: UnitColumns, failed: bool) -> Tensor:
    """(C, 11), see `_WIDTHS`."""
    # With offloading the gradients are on the CPU, and hooks have summed where autograd runs.
    gramian = gramian.to(columns.squares.device)
    failures = torch.full_like(columns.mass, float(failed))
    singles = [c[:, None] for c in (columns.mass, columns.units, columns.cross)]
    products = [gramian[:, 0, :], gramian[:, 1, 1:], columns.squares]
    return torch.cat([*products, *singles, columns.totals, failures[:, None]], dim=1)


def _is_rounding(gramian: Tensor, pair: GradientPair) -> Tensor:
    """(C,) whether p is what is left of p + beta s without p."""
    least = pair.rounding * pair.mix
    return gramian[:, 0, 0] < least**2 * gramian[:, 1, 1]


def _unpack(table: Tensor, loss_scale: float, mix: float) -> tuple[Tensor, UnitColumns]:
    """Undo `_pack`, in the unit of the unscaled gradients: V is averaged over steps."""
    square = loss_scale**2
    products, squares, mass, units, cross, totals, _ = torch.split(table, _WIDTHS, dim=1)
    gramian = torch.stack([products[:, :2], products[:, 1:]], dim=1) / square
    # Only now that it is that of whole gradients: a difference of parts would lose more.
    gramian = without_mix(gramian, mix)
    own = gramian.diagonal(dim1=1, dim2=2)
    totals = torch.where(torch.isnan(totals), own, totals / square)
    singles = (mass[:, 0], units[:, 0], cross[:, 0] / square)
    return gramian, UnitColumns(squares / square, *singles, totals)


def _unique_labels(blocks: Sequence[Block]) -> list[str]:
    """Short labels, unless two towers of the model would share one."""
    labels = [block.label for block in blocks]
    if len(set(labels)) == len(labels):
        return labels
    return [block.name for block in blocks]
