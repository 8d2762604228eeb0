"""A mixture of experts in plain tensor operations: every expert on every token, then weighted.

The libraries compute an expert only where it was chosen; the rest has the weight 0 here.
"""

from torch import Tensor
from torch.nn.functional import silu

from tests.oracle.architecture import Architecture
from tests.oracle.linear import Weights, linear


def mixture(weights: Weights, prefix: str, hidden: Tensor, architecture: Architecture) -> Tensor:
    """The experts that the router chooses, and the shared expert scaled by a gate of its own.

    The probabilities of the chosen experts are not normalised again.

    Args:
        weights: all parameters.
        prefix: of the layer's MLP: `model.layers.0.mlp.`.
        hidden: (T, hidden).
        architecture: number, widths and layout of the experts.

    Returns:
        (T, hidden).
    """
    probabilities = router_probabilities(weights, prefix, hidden)
    last = probabilities.sort(dim=-1, descending=True).values[:, architecture.experts_per_token - 1]
    shares = probabilities * (probabilities >= last[:, None])
    opening = (hidden @ weights[prefix + "shared_expert_gate.weight"].T).sigmoid()
    result = opening * gated(weights, prefix + "shared_expert.", hidden, architecture)
    for number in range(architecture.experts):
        output = _expert(weights, f"{prefix}experts.", number, hidden, architecture)
        result = result + shares[:, number, None] * output
    return result


def router_probabilities(weights: Weights, prefix: str, hidden: Tensor) -> Tensor:
    """(T, experts) of a layer, before the best are chosen."""
    return (hidden @ weights[prefix + "gate.weight"].T).softmax(dim=-1)


def gated(weights: Weights, prefix: str, hidden: Tensor, architecture: Architecture) -> Tensor:
    """Qwen2's MLP: three linear modules.

    Args:
        weights: all parameters.
        prefix: of the three modules.
        hidden: (T, hidden).
        architecture: of the adapters.

    Returns:
        (T, hidden).
    """
    gate = linear(weights, prefix + "gate_proj", hidden, architecture)
    up = linear(weights, prefix + "up_proj", hidden, architecture)
    return linear(weights, prefix + "down_proj", silu(gate) * up, architecture)


def _expert(
    weights: Weights, prefix: str, number: int, hidden: Tensor, architecture: Architecture
) -> Tensor:
    if not architecture.fused_experts:
        return gated(weights, f"{prefix}{number}.", hidden, architecture)
    both = hidden @ weights[prefix + "gate_up_proj"][number].T
    gate, up = both.tensor_split(2, dim=-1)
    result: Tensor = (silu(gate) * up) @ weights[prefix + "down_proj"][number].T
    return result
