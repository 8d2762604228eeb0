"""Unit: one rank's micro-batch. Norms are read by hooks before gradients are accumulated."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pcr_plugin.estimators.base import Objective, RunPass, UnitColumns
from pcr_plugin.estimators.watching import Watching
from pcr_plugin.gradients import Gradients, Local

_REMEDY = (
    "The variance would be wrong. Use pcr.variance.estimator=split_half, which needs no hooks."
)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Cells whose gradient on a rank holds the micro-batches of several ranks: their experts.

    The k-th micro-batches of these ranks are one unit.

    Attributes:
        cells: (C,) True for those cells.
        sum_sizes: (M,) sizes of this rank's micro-batches to the sums over these ranks; all of
            them call it.
        counts_units: whether this rank is the one that counts the merged units.
    """

    cells: Sequence[bool]
    sum_sizes: Callable[[Tensor], Tensor]
    counts_units: bool


@dataclass
class _Pass:
    """What the hooks have seen of one objective so far.

    Attributes:
        reached_in: the unit that last reached each parameter, -1 for none.
        squares: of every unit (C,) ||g_m||^2, in hook values.
        in_pieces: parameters that came twice in one unit.
    """

    reached_in: list[int]
    squares: list[Tensor] = field(default_factory=list)
    in_pieces: set[int] = field(default_factory=set)


class MicroBatchEstimator(Watching):
    """Sums ||g_m||^2 / n_m over this rank's micro-batches.

    A parameter that a micro-batch does not reach (an expert without tokens, a layer that was
    skipped) has no gradient there and contributes nothing, which is what the sum then holds. What
    would make V wrong is a gradient that no hook saw, or one that came in pieces: both are errors.
    In a pipeline so is a gradient that only some units have.

    Args:
        gradients: the host's gradients, which report what autograd computes.
        cells: number of cells C.
        gradient_scale: hook value times this is the micro-batch's contribution to the reduced
            gradient: 1 / world_size where the host averages over ranks.
        device: where autograd runs, and the sums live.
        in_order: whether a parameter's k-th gradient is that of the k-th unit, as in a pipeline,
            which has several units under way; otherwise that of the unit announced last.
        counts_units: whether this rank is the one that counts its units, where several ranks
            compute the same ones.
        merged: cells with units of their own, if there are any.
    """

    def __init__(
        self,
        gradients: Gradients,
        cells: int,
        gradient_scale: float,
        device: torch.device,
        *,
        in_order: bool = False,
        counts_units: bool = True,
        merged: Merged | None = None,
    ) -> None:
        self._gradients = gradients
        self._scale = gradient_scale**2
        self._sums = torch.zeros(cells, 2, dtype=torch.float64, device=device)
        self._in_order = in_order
        self._counts_units = counts_units
        self._merged = merged
        self._sizes: list[float] = []
        self._merged_sizes: list[float] = []
        self._passes: dict[Objective, _Pass] = {}
        self._seconds = 0.0
        self._problem = ""
        self._has_hooks = False

    @property
    def is_linear(self) -> bool:
        """No: the norm of a unit's p does not follow from those of two other gradients."""
        return False

    @property
    def seconds(self) -> float:
        """Time that this step's passes have spent in the hooks (on a GPU: to launch them)."""
        return self._seconds

    @property
    def problem(self) -> str:
        """A gradient was not seen, or not in one piece per micro-batch; empty if all were."""
        return self._problem

    def begin(self, mix: float = 0.0) -> None:
        """Forget the last step.

        Args:
            mix: 0; see `Estimator`.
        """
        assert mix == 0.0, "the units' norms are of the gradients as they come"
        self._problem = ""
        self._sums.zero_()
        self._seconds = 0.0

    @property
    def is_measuring(self) -> bool:
        """Whether a pass of ours is under way, and not one of the host's own."""
        return bool(self._passes)

    def start_unit(self, size: float) -> None:
        """Announce the micro-batch whose backward pass comes next.

        Args:
            size: its number n_m of tokens or sequences. A unit of size 0 is dropped.
        """
        self._sizes.append(size)
        for seen in self._passes.values():
            seen.squares.append(torch.zeros_like(self._sums[:, 0]))

    def collect(self, objective: Objective, run: RunPass) -> None:
        """Run the objective's pass over the whole mini-batch with the hooks on."""
        with self.measuring(objective):
            with self.watching(objective):
                run(None)
            self.end_pass(objective, self._gradients.read)

    @contextmanager
    def measuring(self, *objectives: Objective) -> Iterator[None]:
        """Around one run over the mini-batch that computes these objectives' gradients."""
        if not self._has_hooks:
            # Only now: a host that offloads its parameters has none of them between steps.
            self._gradients.watch(self._add_square)
            self._has_hooks = True
        parameters = len(self._gradients.block_of)
        self._sizes = []
        self._passes = {objective: _Pass([-1] * parameters) for objective in objectives}
        try:
            yield
        finally:
            self._passes = {}

    def end_pass(self, objective: Objective, read: Callable[[], Local]) -> None:
        """Check what the hooks have seen of the objective, and sum it up."""
        seen = self._passes[objective]
        found = self._came_twice(seen) or self._was_missed(seen, read) or self._has_no_order(seen)
        if found and not self._problem:
            self._problem = f"pcr.variance.estimator='micro_batch' {found}. {_REMEDY}"
        self._sums[:, objective] = self._weighted(seen)

    def _came_twice(self, seen: _Pass) -> str:
        if not seen.in_pieces:
            return ""
        return (
            f"got the gradients of {self._names(seen.in_pieces)} more than once in one of "
            f"{len(self._sizes)} micro-batches"
        )

    def _was_missed(self, seen: _Pass, read: Callable[[], Local]) -> str:
        unseen = [i for i, reached in enumerate(seen.reached_in) if reached < 0]
        held = read() if unseen else []
        missed = [i for i in unseen if _has_gradient(held[i])]
        if not missed:
            return ""
        return (
            f"saw no gradient of {self._names(missed)} in {len(self._sizes)} micro-batches, but "
            "there is one"
        )

    def _has_no_order(self, seen: _Pass) -> str:
        """A gradient that some units under way lack: it cannot be told which ones."""
        last = len(self._sizes) - 1
        fewer = {i for i, reached in enumerate(seen.reached_in) if -1 < reached < last}
        if not self._in_order or not fewer:
            return ""
        return (
            f"saw gradients of {self._names(fewer)} in some, but not in every one of "
            f"{len(self._sizes)} micro-batches, of which several are under way at a time"
        )

    def _weighted(self, seen: _Pass) -> Tensor:
        """(C,) sum of ||g_m||^2 / n_m over the units of the pass; those of size 0 are dropped."""
        if not self._sizes:
            return torch.zeros_like(self._sums[:, 0])
        own = self._sums.new_tensor(self._sizes)
        squares, sizes = torch.stack(seen.squares), own[:, None]
        if self._merged is not None:
            together = self._merged.sum_sizes(own.clone())
            self._merged_sizes = together.tolist()
            sizes = torch.where(self._is_merged(), together[:, None], sizes)
        return torch.where(sizes > 0, squares / sizes, 0.0).sum(dim=0)

    def _is_merged(self) -> Tensor:
        cells = () if self._merged is None else self._merged.cells
        return torch.tensor(cells or [False] * len(self._sums), device=self._sums.device)

    def columns(self, plasticity: Local, stability: Local) -> UnitColumns:
        """The sums of this step; the shards are not needed."""
        own = self._sizes if self._counts_units else []
        merged = self._merged is not None and self._merged.counts_units
        together = self._merged_sizes if merged else []

        def of_cells(one: float, other: float) -> Tensor:
            return torch.where(self._is_merged(), self._sums.new_tensor(other), one)

        return UnitColumns(
            squares=self._sums * self._scale,
            mass=of_cells(sum(own), sum(together)),
            units=of_cells(sum(size > 0 for size in own), sum(size > 0 for size in together)),
            cross=torch.full_like(self._sums[:, 0], torch.nan),
            totals=torch.full_like(self._sums, torch.nan),
        )

    def _add_square(self, index: int, gradient: Tensor) -> None:
        if self._objective is None:
            return
        start = time.perf_counter()
        seen, latest = self._passes[self._objective], len(self._sizes) - 1
        unit = seen.reached_in[index] + 1 if self._in_order else latest
        if unit == seen.reached_in[index] or unit > latest:
            seen.in_pieces.add(index)
        seen.reached_in[index] = unit
        if seen.squares:
            at_least_float32 = torch.promote_types(gradient.dtype, torch.float32)
            norm = torch.linalg.vector_norm(gradient, dtype=at_least_float32).double()
            seen.squares[min(unit, latest)][self._gradients.block_of[index]] += norm**2
        self._seconds += time.perf_counter() - start

    def _names(self, indices: set[int] | list[int]) -> str:
        return ", ".join(repr(self._gradients.names[i]) for i in sorted(indices))


def _has_gradient(shard: Tensor | None) -> bool:
    """Whether there is more than zeros; a NaN is more."""
    return shard is not None and bool(shard.any())
