"""Unit: one sequence. Per-sequence norms from random probes of the scope's linear layers.

Neither micro-batches nor packing nor the layout enter: the rows of all micro-batches are the
units, and a row that several ranks share (tensor, context or Ulysses parallelism) is put together
before anything is squared.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pcr_plugin.estimators.base import Objective, RunPass, UnitColumns
from pcr_plugin.estimators.last_projection import LastProjection
from pcr_plugin.estimators.probed_columns import ProbedColumns
from pcr_plugin.estimators.probed_rows import ProbedRows
from pcr_plugin.gradients import Gradients, LinearLayer, Local, Side
from pcr_plugin.statistics import TokenRows, directions, projected, signs

_REMEDY = "The variance would be wrong. Use pcr.variance.estimator=split_half."


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


class SequenceEstimator:
    """Probes every linear layer of the scope, in both passes with the same directions.

    Args:
        gradients: the host's gradients.
        layers: linear layers that together have all parameters of the scope.
        cells: number of cells C.
        probes: directions K on either side of a layer; all K^2 pairs are read.
        step: number of the current step, which seeds the directions.
        gradient_scale: what autograd computes on a rank, times this, is its contribution to the
            reduced gradient.
        device: where autograd runs.
        ranks: of the parameters that this rank has.
        in_order: whether a layer's k-th gradient is that of the k-th micro-batch, as in a
            pipeline; otherwise that of the micro-batch announced last.
    """

    def __init__(
        self,
        gradients: Gradients,
        layers: Sequence[LinearLayer],
        cells: int,
        *,
        probes: int,
        step: Callable[[], int],
        gradient_scale: float,
        device: torch.device,
        ranks: SequenceRanks,
        in_order: bool = False,
    ) -> None:
        self._gradients = gradients
        self._layers = layers
        self._columns = ProbedColumns(layers, gradients.block_of, cells, probes, device)
        self._probes, self._step = probes, step
        self._scale = gradient_scale**2
        self._device = device
        self._ranks = ranks
        self._in_order = in_order
        # Of the pass under way: one entry per micro-batch.
        self._units: list[ProbedRows] = []
        self._backward_passes = [0] * len(layers)
        self._shared = LastProjection()
        self._directions: dict[tuple[int, bool, torch.dtype], Tensor] = {}
        self._squares = torch.zeros(cells, 2, dtype=torch.float64, device=device)
        self._totals = torch.zeros_like(self._squares)
        self._sizes = self._squares.new_zeros(0)
        self._objective: Objective | None = None
        self._problem, self._seconds, self._has_hooks = "", 0.0, False

    @property
    def seconds(self) -> float:
        """Time that this step's passes have spent in the hooks (on a GPU: to launch them)."""
        return self._seconds

    @property
    def problem(self) -> str:
        """A layer's tokens were not those of the micro-batch, or it was not seen."""
        return self._problem

    @property
    def is_measuring(self) -> bool:
        """Whether a pass of ours is under way, and not one of the host's own."""
        return self._objective is not None

    def begin(self) -> None:
        """Forget the last step; the next pass draws new directions."""
        self._problem, self._seconds = "", 0.0
        self._forget()

    def start_micro_batch(self, tokens: TokenRows, sizes: Tensor) -> None:
        """Announce the micro-batch whose backward pass comes next.

        Args:
            tokens: the row of every token of a layer's input, all ranks' tokens together where
                a layer gathers them.
            sizes: (R,) number n_i of tokens or sequences of each row. Rows of size 0 are dropped.
        """
        sizes = sizes.to(self._device, torch.float64)
        self._units.append(ProbedRows(tokens, sizes, self._columns, len(self._layers)))

    def collect(self, objective: Objective, run: RunPass) -> None:
        """Run the objective's pass over the whole mini-batch with the hooks on."""
        if not self._has_hooks:
            for index, layer in enumerate(self._layers):
                layer.module.register_forward_hook(partial(self._forward, index), with_kwargs=True)
            self._has_hooks = True
        with self._watching(objective):
            run(None)
        start = time.perf_counter()
        self._note(self._was_missed())
        self._sum_up(objective)
        self._seconds += time.perf_counter() - start

    def columns(self, plasticity: Local, stability: Local) -> UnitColumns:
        """The sums of this step; the shards are not needed."""
        counted = self._sizes * self._ranks.counts_units
        self._forget()
        ones = torch.ones_like(self._squares[:, 0])
        return UnitColumns(
            squares=self._squares * self._scale,
            mass=ones * counted.sum(),
            units=ones * (counted > 0).sum(),
            cross=torch.full_like(ones, torch.nan),
            totals=self._totals * self._scale,
        )

    def _sum_up(self, objective: Objective) -> None:
        """Put the rows' parts together, then square: ranks that share them all take part."""
        rows = torch.cat([self._columns.empty(0), *(unit.finish() for unit in self._units)])
        total = self._ranks.sum_all(rows.sum(dim=0))
        self._sizes = torch.cat([self._sizes[:0], *(unit.sizes for unit in self._units)])
        self._units = []
        squares = self._ranks.sum_parts(rows).square_()
        weighted = torch.where(self._sizes > 0, 1 / self._sizes, 0.0) @ squares
        # What is equal on several ranks is counted on one: the table is summed over all of them.
        self._squares[:, objective] = self._columns.by_cell(weighted) * self._ranks.counts_rows
        square = self._columns.by_cell(total.square())
        self._totals[:, objective] = square * self._ranks.counts_sums

    def _forget(self) -> None:
        """Nothing of a step's rows and directions outlives it."""
        self._units = []
        self._shared = LastProjection()
        self._directions.clear()

    @contextmanager
    def _watching(self, objective: Objective) -> Iterator[None]:
        self._objective = objective
        self._units = []
        self._backward_passes = [0] * len(self._layers)
        try:
            yield
        except BaseException:
            self._forget()
            raise
        finally:
            self._objective = None

    @torch.no_grad()
    def _forward(
        self, index: int, module: nn.Module, inputs: tuple[Any, ...], named: Any, output: Any
    ) -> None:
        """Project the input; the gradient of the output comes later, if this call has one.

        A forward pass whose activations are recomputed has no graph, or one that stays the only
        one that gradients run through; so every token is counted once in either way.
        """
        result = output[0] if isinstance(output, tuple) else output
        if self._objective is None or not result.requires_grad:
            return
        start = time.perf_counter()
        layer = self._layers[index]
        side = layer.inputs
        tokens = side.prepare(inputs[0] if inputs else next(iter(named.values())))
        hidden = self._shared.get(layer.reads, tokens)
        if hidden is None:
            hidden = projected(tokens, self._signs(index, False, tokens.dtype), side.width)
            self._shared.keep(layer.reads, tokens, hidden)
        result.register_hook(partial(self._backward, index, hidden))
        self._seconds += time.perf_counter() - start

    @torch.no_grad()
    def _backward(self, index: int, hidden: Tensor, gradient: Tensor) -> None:
        if self._objective is None:
            return
        start = time.perf_counter()
        layer = self._layers[index]
        signal = projected(gradient, self._signs(index, True, gradient.dtype), layer.outputs.width)
        signal, hidden = layer.outputs.gather(signal), layer.inputs.gather(hidden)
        unit = self._backward_passes[index] if self._in_order else len(self._units) - 1
        self._backward_passes[index] += 1
        if found := self._does_not_fit(index, unit, len(signal), len(hidden)):
            self._note(found)
        else:
            self._units[unit].add(layer, signal, hidden)
        self._seconds += time.perf_counter() - start

    def _signs(self, index: int, of_outputs: bool, dtype: torch.dtype) -> Tensor:
        """Drawn once a step, for both objectives and all micro-batches."""
        key = (index, of_outputs, dtype)
        drawn = self._directions.get(key)
        if drawn is None:
            layer = self._layers[index]
            side: Side = layer.outputs if of_outputs else layer.inputs
            name = layer.name if of_outputs else layer.reads or layer.name
            seed = f"{self._step()} {name} {'outputs' if of_outputs else 'inputs'}"
            rows = side.of_this_rank(signs(side.width, self._probes, seed))
            drawn = self._directions[key] = directions(rows, side.width, self._device, dtype)
        return drawn

    def _does_not_fit(self, index: int, unit: int, gradients: int, inputs: int) -> str:
        name = self._layers[index].name
        if unit >= len(self._units) or unit < 0:
            return f"got a gradient of {name!r} more often than micro-batches"
        tokens = len(self._units[unit].tokens.places)
        if gradients == inputs == tokens:
            return ""
        return (
            f"got {gradients} gradients and {inputs} inputs of {name!r} in a micro-batch of "
            f"{tokens} tokens"
        )

    def _was_missed(self) -> str:
        fewer = [i for i, count in enumerate(self._backward_passes) if count < len(self._units)]
        unseen = [i for i in fewer if self._in_order or not self._backward_passes[i]]
        held = self._gradients.read() if unseen else []
        for i in unseen:
            layer = self._layers[i]
            own = [held[at] for at in (layer.weight, layer.bias) if at is not None]
            if any(shard is not None and bool(shard.any()) for shard in own):
                return (
                    f"saw {self._backward_passes[i]} gradients of {layer.name!r} in "
                    f"{len(self._units)} micro-batches"
                )
        return ""

    def _note(self, found: str) -> None:
        if found and not self._problem:
            self._problem = f"pcr.variance.estimator='sequence' {found}. {_REMEDY}"
