"""Unit: one sequence. Per-sequence norms from random probes of the scope's linear layers.

Neither micro-batches nor packing nor the layout enter: the rows of all micro-batches are the
units, and a row that several ranks share (tensor, context or Ulysses parallelism) is put together
before anything is squared.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pcr_plugin.estimators.base import Objective, RunPass, UnitColumns
from pcr_plugin.estimators.last_projection import LastProjection
from pcr_plugin.estimators.probed_columns import ProbedColumns
from pcr_plugin.estimators.probed_rows import ProbedRows
from pcr_plugin.estimators.sequence_ranks import SequenceRanks
from pcr_plugin.estimators.watching import Watching
from pcr_plugin.gradients import Gradients, LinearLayer, Local, Side
from pcr_plugin.statistics import TokenRows, directions, projected, signs

_REMEDY = "The variance would be wrong. Use pcr.variance.estimator=split_half."


@dataclass
class _Pass:
    """What the hooks have seen of one objective: its micro-batches, and how often each layer."""

    backward_passes: list[int]
    units: list[ProbedRows] = field(default_factory=list)


class SequenceEstimator(Watching):
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
        self._passes: dict[Objective, _Pass] = {}
        self._mix = 0.0
        self._rows_of_s: Tensor | None = None
        self._shared = LastProjection()
        self._directions: dict[tuple[int, bool, torch.dtype], Tensor] = {}
        self._squares = torch.zeros(cells, 2, dtype=torch.float64, device=device)
        self._totals = torch.zeros_like(self._squares)
        self._sizes = self._squares.new_zeros(0)
        self._problem, self._seconds, self._has_hooks = "", 0.0, False

    @property
    def is_linear(self) -> bool:
        """Yes: probes are."""
        return True

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
        return bool(self._passes)

    def begin(self, mix: float = 0.0) -> None:
        """Forget the last step; the next pass draws new directions.

        Args:
            mix: see `Estimator`.
        """
        self._problem, self._seconds, self._mix = "", 0.0, mix
        self._forget()

    def start_micro_batch(self, tokens: TokenRows, sizes: Tensor) -> None:
        """Announce the micro-batch whose backward pass comes next.

        Args:
            tokens: the row of every token of a layer's input, all ranks' tokens together where
                a layer gathers them.
            sizes: (R,) number n_i of tokens or sequences of each row. Rows of size 0 are dropped.
        """
        sizes = sizes.to(self._device, torch.float64)
        for seen in self._passes.values():
            seen.units.append(ProbedRows(tokens, sizes, self._columns, len(self._layers)))

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
            for index, layer in enumerate(self._layers):
                layer.module.register_forward_hook(partial(self._forward, index), with_kwargs=True)
            self._has_hooks = True
        self._passes = {objective: _Pass([0] * len(self._layers)) for objective in objectives}
        try:
            yield
        except BaseException:
            self._forget()
            raise
        finally:
            self._passes = {}

    def end_pass(self, objective: Objective, read: Callable[[], Local]) -> None:
        """Check what the hooks have seen of the objective, and sum it up."""
        start = time.perf_counter()
        self._note(self._was_missed(self._passes[objective], read))
        self._sum_up(objective, self._passes.pop(objective).units)
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

    def _sum_up(self, objective: Objective, units: Sequence[ProbedRows]) -> None:
        """Put the rows' parts together, then square: ranks that share them all take part."""
        rows = torch.cat([self._columns.empty(0), *(unit.finish() for unit in units)])
        if self._mix:
            rows = self._without_mix(objective, rows)
        total = self._ranks.sum_all(rows.sum(dim=0))
        self._sizes = torch.cat([self._sizes[:0], *(unit.sizes for unit in units)])
        squares = self._ranks.sum_parts(rows).square_()
        weighted = torch.where(self._sizes > 0, 1 / self._sizes, 0.0) @ squares
        # What is equal on several ranks is counted on one: the table is summed over all of them.
        self._squares[:, objective] = self._columns.by_cell(weighted) * self._ranks.counts_rows
        square = self._columns.by_cell(total.square())
        self._totals[:, objective] = square * self._ranks.counts_sums

    def _without_mix(self, objective: Objective, rows: Tensor) -> Tensor:
        """Probes of p from those of p + mix s; the stability pass ends first."""
        if objective == Objective.STABILITY:
            self._rows_of_s = rows.clone()
            return rows
        assert self._rows_of_s is not None
        rows, self._rows_of_s = rows - self._mix * self._rows_of_s, None
        return rows

    def _forget(self) -> None:
        """Nothing of a step's rows and directions outlives it."""
        self._rows_of_s = None
        self._shared = LastProjection()
        self._directions.clear()

    @torch.no_grad()
    def _forward(
        self, index: int, module: nn.Module, inputs: tuple[Any, ...], named: Any, output: Any
    ) -> None:
        """Project the input; the gradient of the output comes later, if this call has one.

        A forward pass whose activations are recomputed has no graph, or one that stays the only
        one that gradients run through; so every token is counted once in either way.
        """
        result = output[0] if isinstance(output, tuple) else output
        if not self._passes or not result.requires_grad:
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
        seen = self._passes[self._objective]
        unit = seen.backward_passes[index] if self._in_order else len(seen.units) - 1
        seen.backward_passes[index] += 1
        if found := _does_not_fit(layer.name, seen.units, unit, len(signal), len(hidden)):
            self._note(found)
        else:
            seen.units[unit].add(layer, signal, hidden)
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

    def _was_missed(self, seen: _Pass, read: Callable[[], Local]) -> str:
        counts = seen.backward_passes
        fewer = [i for i, count in enumerate(counts) if count < len(seen.units)]
        unseen = [i for i in fewer if self._in_order or not counts[i]]
        held = read() if unseen else []
        for i in unseen:
            layer = self._layers[i]
            own = [held[at] for at in (layer.weight, layer.bias) if at is not None]
            if any(shard is not None and bool(shard.any()) for shard in own):
                return (
                    f"saw {counts[i]} gradients of {layer.name!r} in "
                    f"{len(seen.units)} micro-batches"
                )
        return ""

    def _note(self, found: str) -> None:
        if found and not self._problem:
            self._problem = f"pcr.variance.estimator='sequence' {found}. {_REMEDY}"


def _does_not_fit(
    name: str, units: Sequence[ProbedRows], unit: int, gradients: int, inputs: int
) -> str:
    if unit >= len(units) or unit < 0:
        return f"got a gradient of {name!r} more often than micro-batches"
    tokens = len(units[unit].tokens.places)
    if gradients == inputs == tokens:
        return ""
    return (
        f"got {gradients} gradients and {inputs} inputs of {name!r} in a micro-batch of "
        f"{tokens} tokens"
    )
