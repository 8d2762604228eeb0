"""Norms of whole gradients."""

import math

from torch import Tensor

Gradient = dict[str, Tensor]


def norm(gradient: Gradient) -> float:
    """Euclidean norm over all parameters, summed in float64."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in gradient.values()))


def difference(left: Gradient, right: Gradient) -> Gradient:
    """Left minus right in float64; both have the same parameters."""
    assert left.keys() == right.keys()
    return {name: tensor.double() - right[name].double() for name, tensor in left.items()}
