"""Linear layers of the scope as their host runs them: where inputs and output gradients are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


def _as_it_is(tokens: Tensor) -> Tensor:
    return tokens


@dataclass(frozen=True, kw_only=True)
class Side:
    """Inputs or outputs of a layer.

    Args:
        width: features of the whole layer.
        here: the slices of them that this rank computes with, in its order; `None` for all.
        gather: from (tokens, K) of this rank to those of all tokens of the layer's weight
            gradient, where ranks have different tokens on this side (sequence parallelism).
        prepare: from the module's argument to what the weight multiplies, where the module does
            more than multiply.
    """

    width: int
    here: Sequence[slice] | None = None
    gather: Callable[[Tensor], Tensor] = _as_it_is
    prepare: Callable[[Tensor], Tensor] = _as_it_is

    def of_this_rank(self, whole: Tensor) -> Tensor:
        """Rows of a (width, K) table for the features here."""
        return whole if self.here is None else torch.cat([whole[part] for part in self.here])


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """A module that multiplies its input by a weight, y = W x + b, with parameters in the scope.

    Args:
        module: calls of it are watched; its first argument is x and its (first) result y.
        name: in the whole model, the same in every layout.
        inputs: the side of x.
        outputs: the side of y.
        reads: what layers have in common that may get the same x, which is then read once with
            the directions of all; `None` for directions of its own.
        weight: index of W among the scope's parameters here; `None` outside.
        bias: of b.
        counts_bias: whether this rank's b is one that no other of its tensor-parallel ranks has,
            or the first of equal ones.
    """

    module: nn.Module = field(repr=False)
    name: str
    inputs: Side
    outputs: Side
    reads: str | None = None
    weight: int | None = None
    bias: int | None = None
    counts_bias: bool = True
