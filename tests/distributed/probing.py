"""What random probes read of a dense gradient: the signs are ours, the products are not."""

from collections.abc import Callable

import torch
from torch import Tensor

from pcr_plugin.statistics import signs
from tests.oracle.gradients import Gradient

# Layer, side, features to the (features, K) signs of this side.
Directions = Callable[[str, str, int], Tensor]


def directions(layer: str, side: str, width: int, *, probes: int, step: int) -> Tensor:
    """The signs of one side of a layer in one step.

    Args:
        layer: its name in the model.
        side: `inputs` or `outputs`.
        width: features of this side.
        probes: number K.
        step: of the run, from 1.

    Returns:
        (width, K) of +-1 in float64.
    """
    return torch.sign(signs(width, probes, f"{step} {layer} {side}")).double()


def probed(gradient: Gradient, directions: Directions) -> Gradient:
    """U^T G V / K of every weight and U^T b / sqrt(K) of every bias of a linear layer.

    Their squared norms estimate those of the gradients. Other parameters are left out.

    Args:
        gradient: by parameter name; the gradient of a weight is (outputs, inputs).
        directions: U and V.
    """
    found = {}
    for name, values in gradient.items():
        layer, _, attribute = name.rpartition(".")
        left = directions(layer, "outputs", values.shape[0])
        if attribute == "bias":
            found[name] = left.T @ values / left.shape[1] ** 0.5
        elif values.dim() == 2:
            right = directions(layer, "inputs", values.shape[1])
            found[name] = left.T @ values @ right / left.shape[1]
    return found
