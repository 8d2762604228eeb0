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
    return signs(width, probes, f"{step} {layer} {side}").double()


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
            # Layers of one module may read the same tensor, in the same directions.
            inputs = values.shape[1]
            right = directions(f"{layer.rpartition('.')[0]} {inputs}", "inputs", inputs)
            found[name] = _two_sided(left, values, right)
    return found


def probed_fused(gradient: Gradient, directions: Directions) -> Gradient:
    """The same for the MLPs of Megatron-core, which multiplies by gate and up in one.

    Args:
        gradient: by the names of the Hugging Face model.
        directions: U and V of Megatron-core's layers.
    """
    found = {}
    for name, gate in gradient.items():
        if not name.endswith("mlp.gate_proj.weight"):
            continue
        mlp = name.removesuffix("gate_proj.weight")
        up, down = gradient[f"{mlp}up_proj.weight"], gradient[f"{mlp}down_proj.weight"]
        layer = mlp.replace("model.", "decoder.")
        both = torch.cat([gate, up])
        for first, second, values in (("gate", "linear_fc1", both), ("down", "linear_fc2", down)):
            left = directions(layer + second, "outputs", values.shape[0])
            right = directions(layer + second, "inputs", values.shape[1])
            found[f"{mlp}{first}_proj.weight"] = _two_sided(left, values, right)
        found[f"{mlp}up_proj.weight"] = torch.zeros(0, dtype=torch.float64)
    return found


def _two_sided(left: Tensor, values: Tensor, right: Tensor) -> Tensor:
    return left.T @ values @ right / left.shape[1]
