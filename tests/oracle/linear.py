"""A linear module in plain tensor operations, with its adapter if it has one."""

from torch import Tensor

from tests.oracle.architecture import Architecture, adapter

# Parameter name to tensor: as a Hugging Face checkpoint spells it, adapters as PEFT does.
Weights = dict[str, Tensor]


def linear(weights: Weights, module: str, hidden: Tensor, architecture: Architecture) -> Tensor:
    """Apply W + (alpha / r) B A and the bias.

    Args:
        weights: all parameters.
        module: name of the module, without the parameter's own.
        hidden: (T, in).
        architecture: rank and alpha of the adapters.

    Returns:
        (T, out).
    """
    matrix = weights[f"{module}.weight"]
    if architecture.lora_rank:
        down, up = (weights[name] for name in adapter(module))
        matrix = matrix + architecture.lora_alpha / architecture.lora_rank * (up @ down)
    result = hidden @ matrix.T
    bias = weights.get(f"{module}.bias")
    return result if bias is None else result + bias
