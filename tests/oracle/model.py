"""A dense Qwen2 or Qwen3 in plain tensor operations, in the dtype of its weights.

Written from the architecture's description and not from a library, so that float64 stays float64
(library norms compute in float32) and nothing is sharded, padded or packed: one sequence at a time.
"""

import torch
from torch import Tensor

from tests.oracle.architecture import Architecture
from tests.oracle.experts import gated, mixture, router_probabilities
from tests.oracle.linear import Weights, linear

__all__ = ["Architecture", "Weights", "next_token_log_probs", "routing"]


def next_token_log_probs(
    weights: Weights, tokens: Tensor, architecture: Architecture, temperature: float = 1.0
) -> Tensor:
    """Log-probabilities of every possible next token.

    Args:
        weights: all parameters.
        tokens: (T,) one sequence.
        architecture: its sizes.
        temperature: the logits are divided by it.

    Returns:
        (T, V); row t is the distribution of token t + 1.
    """
    hidden, _ = _decoded(weights, tokens, architecture)
    output = "model.embed_tokens" if architecture.tied else "lm_head"
    logits = hidden @ weights[f"{output}.weight"].T
    return (logits / temperature).log_softmax(dim=-1)


def routing(weights: Weights, tokens: Tensor, architecture: Architecture) -> Tensor:
    """Every router's probabilities of all its experts.

    Args:
        weights: all parameters.
        tokens: (T,) one sequence.
        architecture: with experts.

    Returns:
        (layers, T, experts).
    """
    _, inputs = _decoded(weights, tokens, architecture)
    tables = [
        router_probabilities(weights, f"model.layers.{layer}.mlp.", hidden)
        for layer, hidden in enumerate(inputs)
    ]
    return torch.stack(tables)


def _decoded(
    weights: Weights, tokens: Tensor, architecture: Architecture
) -> tuple[Tensor, list[Tensor]]:
    """What the output layer sees, and what every layer's MLP sees; (T, hidden) each."""
    inputs = []
    hidden = weights["model.embed_tokens.weight"][tokens]
    for layer in range(architecture.layers):
        prefix = f"model.layers.{layer}."
        normed = _norm(hidden, weights[prefix + "input_layernorm.weight"], architecture)
        hidden = hidden + _attention(weights, prefix + "self_attn.", normed, architecture)
        normed = _norm(hidden, weights[prefix + "post_attention_layernorm.weight"], architecture)
        inputs.append(normed)
        mlp = mixture if architecture.experts else gated
        hidden = hidden + mlp(weights, prefix + "mlp.", normed, architecture)
    return _norm(hidden, weights["model.norm.weight"], architecture), inputs


def _norm(hidden: Tensor, gain: Tensor, architecture: Architecture) -> Tensor:
    mean_square = hidden.square().mean(dim=-1, keepdim=True)
    return gain * hidden * (mean_square + architecture.epsilon).rsqrt()


def _attention(weights: Weights, prefix: str, hidden: Tensor, architecture: Architecture) -> Tensor:
    def heads(kind: str) -> Tensor:
        projected = linear(weights, f"{prefix}{kind}_proj", hidden, architecture)
        separate = projected.view(len(hidden), -1, architecture.head_width).transpose(0, 1)
        gain = weights.get(f"{prefix}{kind}_norm.weight")
        return separate if gain is None else _norm(separate, gain, architecture)

    shared = architecture.heads // architecture.key_heads
    query = _rotate(heads("q"), architecture)
    key = _rotate(heads("k"), architecture).repeat_interleave(shared, dim=0)
    value = heads("v").repeat_interleave(shared, dim=0)
    scores = query @ key.transpose(1, 2) / architecture.head_width**0.5
    future = torch.ones(len(hidden), len(hidden), dtype=torch.bool).triu(diagonal=1)
    mixed = scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ value
    joined: Tensor = mixed.transpose(0, 1).reshape(len(hidden), -1)
    return linear(weights, prefix + "o_proj", joined, architecture)


def _rotate(heads: Tensor, architecture: Architecture) -> Tensor:
    """Rotary position embedding: channel i turns together with channel i + width / 2."""
    width = architecture.head_width
    frequency = architecture.rope_base ** (-torch.arange(0, width, 2, dtype=heads.dtype) / width)
    angle = torch.arange(heads.shape[1], dtype=heads.dtype)[:, None] * frequency
    first, second = heads.chunk(2, dim=-1)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
