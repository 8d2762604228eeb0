"""A dense Qwen2 in plain tensor operations, in the dtype of its weights.

Written from the architecture's description and not from a library, so that float64 stays float64
(library norms compute in float32) and nothing is sharded, padded or packed: one sequence at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import silu

# Parameter name, as a Hugging Face checkpoint spells it, to tensor.
Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of a Qwen2 decoder; `heads` query heads share `key_heads` keys and values."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    intermediate: int
    vocabulary: int
    rope_base: float = 10_000.0
    epsilon: float = 1e-6

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


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
    hidden = weights["model.embed_tokens.weight"][tokens]
    for layer in range(architecture.layers):
        prefix = f"model.layers.{layer}."
        normed = _norm(hidden, weights[prefix + "input_layernorm.weight"], architecture)
        hidden = hidden + _attention(weights, prefix + "self_attn.", normed, architecture)
        normed = _norm(hidden, weights[prefix + "post_attention_layernorm.weight"], architecture)
        hidden = hidden + _mlp(weights, prefix + "mlp.", normed)
    hidden = _norm(hidden, weights["model.norm.weight"], architecture)
    logits = hidden @ weights["lm_head.weight"].T
    return (logits / temperature).log_softmax(dim=-1)


def _norm(hidden: Tensor, gain: Tensor, architecture: Architecture) -> Tensor:
    mean_square = hidden.square().mean(dim=-1, keepdim=True)
    return gain * hidden * (mean_square + architecture.epsilon).rsqrt()


def _mlp(weights: Weights, prefix: str, hidden: Tensor) -> Tensor:
    gate = hidden @ weights[prefix + "gate_proj.weight"].T
    up = hidden @ weights[prefix + "up_proj.weight"].T
    return (silu(gate) * up) @ weights[prefix + "down_proj.weight"].T


def _attention(weights: Weights, prefix: str, hidden: Tensor, architecture: Architecture) -> Tensor:
    def heads(kind: str) -> Tensor:
        projected = hidden @ weights[f"{prefix}{kind}_proj.weight"].T
        projected = projected + weights[f"{prefix}{kind}_proj.bias"]
        return projected.view(len(hidden), -1, architecture.head_width).transpose(0, 1)

    shared = architecture.heads // architecture.key_heads
    query = _rotate(heads("q"), architecture)
    key = _rotate(heads("k"), architecture).repeat_interleave(shared, dim=0)
    value = heads("v").repeat_interleave(shared, dim=0)
    scores = query @ key.transpose(1, 2) / architecture.head_width**0.5
    future = torch.ones(len(hidden), len(hidden), dtype=torch.bool).triu(diagonal=1)
    mixed = scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ value
    joined: Tensor = mixed.transpose(0, 1).reshape(len(hidden), -1)
    return joined @ weights[prefix + "o_proj.weight"].T


def _rotate(heads: Tensor, architecture: Architecture) -> Tensor:
    """Rotary position embedding: channel i turns together with channel i + width / 2."""
    width = architecture.head_width
    frequency = architecture.rope_base ** (-torch.arange(0, width, 2, dtype=heads.dtype) / width)
    angle = torch.arange(heads.shape[1], dtype=heads.dtype)[:, None] * frequency
    first, second = heads.chunk(2, dim=-1)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
