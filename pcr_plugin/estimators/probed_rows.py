"""The probes of one micro-batch's rows, from the projections of every layer's tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcr_plugin.estimators.probed_columns import ProbedColumns
from pcr_plugin.gradients import LinearLayer
from pcr_plugin.statistics import TokenRows, row_products, row_sums

# A layer alone is a handful of operations on a few numbers, whose price is that of starting them.
_TOGETHER = 16


class ProbedRows:
    """Multiplies the two projections of a layer, several layers at once.

    Args:
        tokens: the row of every token of a layer's input.
        sizes: (R,) number n_i of tokens or sequences of each row.
        columns: where a row has the probes of every parameter.
        layers: that the micro-batch usually goes through.
    """

    def __init__(
        self, tokens: TokenRows, sizes: Tensor, columns: ProbedColumns, layers: int
    ) -> None:
        self.tokens = tokens
        self.sizes = sizes
        self._columns = columns
        self._found = columns.empty(tokens.rows)
        self._missing = layers
        self._waiting: list[tuple[LinearLayer, Tensor, Tensor]] = []

    def add(self, layer: LinearLayer, signal: Tensor, hidden: Tensor) -> None:
        """Take the projections of one layer.

        Args:
            layer: whose they are.
            signal: (T, K) of the gradient of its outputs.
            hidden: (T, K) of its inputs.
        """
        self._waiting.append((layer, signal, hidden))
        self._missing -= 1
        if len(self._waiting) == _TOGETHER or not self._missing:
            self._multiply()

    def finish(self) -> Tensor:
        """(R, columns) what every row has contributed to the gradient's probes."""
        self._multiply()
        return self._found

    def _multiply(self) -> None:
        weights = [found for found in self._waiting if found[0].weight is not None]
        biases = [found for found in self._waiting if _has_bias(found[0])]
        self._waiting = []
        if weights:
            signals, hidden = _stacked([w[1] for w in weights]), _stacked([w[2] for w in weights])
            products = row_products(signals, hidden, self.tokens).flatten(2)
            for (layer, *_), of_layer in zip(weights, products.unbind(1), strict=True):
                assert layer.weight is not None
                self._found[:, self._columns.of(layer.weight)] += of_layer
        if biases:
            sums = row_sums(_stacked([b[1] for b in biases]), self.tokens)
            for (layer, *_), of_layer in zip(biases, sums.unbind(1), strict=True):
                assert layer.bias is not None
                self._found[:, self._columns.of(layer.bias)] += of_layer


def _has_bias(layer: LinearLayer) -> bool:
    return layer.bias is not None and layer.counts_bias


def _stacked(projections: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(projections), dim=1)
