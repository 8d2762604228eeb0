"""Tiny Qwen2 and Qwen3 models with random weights, and their Hugging Face checkpoints."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tests.oracle.architecture import LINEARS, Architecture, adapter
from tests.oracle.linear import Weights
from tests.support.checkpoint import save_checkpoint

__all__ = ["MODELS", "perturbed", "random_weights", "save_checkpoint"]

# No size is a multiple of 2 x 3, so that most tensors shard unevenly over 2 and over 3 ranks.
WIDE = Architecture(layers=4, hidden=20, heads=2, key_heads=1, intermediate=37, vocabulary=53)
# FSDP2 cuts dimension 0 into ceil(rows / ranks): 4 rows on 3 ranks are 2 + 2 + 0, so the third
# rank holds nothing of any MLP.
NARROW = Architecture(layers=3, hidden=4, heads=2, key_heads=2, intermediate=4, vocabulary=53)
TIED = replace(WIDE, layers=3, tied=True)
# The factor alpha / r is no integer.
LORA = replace(WIDE, layers=3, lora_rank=3, lora_alpha=4)
# The same mathematics, and for one seed the same numbers, in two layouts. The experts' width
# is a multiple of 4 because the library's `grouped_mm` wants rows of 16 bytes.
MOE_FUSED = replace(
    WIDE, layers=2, intermediate=16, experts=5, experts_per_token=2, shared_intermediate=7
)
MOE_LIST = replace(MOE_FUSED, fused_experts=False)

# Heads, the MLP's width, the vocabulary and the layers can be cut in two.
EVEN = Architecture(layers=4, hidden=24, heads=4, key_heads=2, intermediate=36, vocabulary=52)
EVEN_TIED = replace(EVEN, tied=True)
EVEN_NORMED = replace(EVEN, normed_heads=True)
# Half the experts to either of two ranks.
EVEN_MOE = replace(
    EVEN,
    layers=2,
    intermediate=16,
    experts=4,
    experts_per_token=2,
    shared_intermediate=8,
    fused_experts=False,
)

MODELS = {
    "wide": WIDE,
    "narrow": NARROW,
    "tied": TIED,
    "lora": LORA,
    "moe_fused": MOE_FUSED,
    "moe_list": MOE_LIST,
    "even": EVEN,
    "even_tied": EVEN_TIED,
    "even_normed": EVEN_NORMED,
    "even_moe": EVEN_MOE,
}

# Shape and standard deviation to a tensor.
_Normal = Callable[..., Tensor]


def random_weights(architecture: Architecture, seed: int) -> Weights:
    """Weights under which the logits spread by about 1 and every gradient is of a fair size.

    Args:
        architecture: sizes.
        seed: of the generator.

    Returns:
        Name to float32 tensor: the model's as its checkpoint has them, adapters as PEFT does.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    a = architecture
    output_scale = 1.2 * a.hidden**-0.5
    embedding = normal(a.vocabulary, a.hidden, scale=output_scale if a.tied else 1.0)
    if a.experts:
        # What all tokens share makes some experts popular with them and leaves few to others.
        embedding[:, 0] = 2.0
    weights = {"model.embed_tokens.weight": embedding}
    for layer in range(a.layers):
        prefix = f"model.layers.{layer}."
        weights |= _attention(a, f"{prefix}self_attn.", normal)
        if a.experts:
            weights |= _mixture(a, f"{prefix}mlp.", normal)
        else:
            weights |= _mlp(a.hidden, a.intermediate, f"{prefix}mlp.", normal)
        for kind in ("input", "post_attention"):
            weights[f"{prefix}{kind}_layernorm.weight"] = 1 + normal(a.hidden, scale=0.1)
    weights["model.norm.weight"] = 1 + normal(a.hidden, scale=0.1)
    if not a.tied:
        weights["lm_head.weight"] = normal(a.vocabulary, a.hidden, scale=output_scale)
    if a.lora_rank:
        weights |= _adapters(a, weights, normal)
    return weights


def perturbed(weights: Weights, relative: float, seed: int) -> Weights:
    """A copy whose every tensor is moved by a share of its own spread; with adapters only they."""
    generator = torch.Generator().manual_seed(seed)
    adapters = [name for name in weights if ".lora_" in name]
    return weights | {
        name: weights[name]
        + relative * weights[name].std() * torch.randn(weights[name].shape, generator=generator)
        for name in adapters or weights
    }


def _attention(a: Architecture, prefix: str, normal: _Normal) -> Weights:
    weights = {}
    outputs = {"q": a.hidden, "k": a.key_heads * a.head_width, "v": a.key_heads * a.head_width}
    for kind, rows in outputs.items():
        name = f"{prefix}{kind}_proj."
        weights[name + "weight"] = normal(rows, a.hidden, scale=a.hidden**-0.5)
        if not a.normed_heads:
            weights[name + "bias"] = normal(rows, scale=0.3)
        elif kind != "v":
            weights[f"{prefix}{kind}_norm.weight"] = 1 + normal(a.head_width, scale=0.1)
    weights[prefix + "o_proj.weight"] = normal(a.hidden, a.hidden, scale=a.hidden**-0.5)
    return weights


def _mlp(hidden: int, width: int, prefix: str, normal: _Normal, size: float = 1.5) -> Weights:
    weights = {
        f"{prefix}{kind}_proj.weight": normal(width, hidden, scale=hidden**-0.5)
        for kind in ("gate", "up")
    }
    weights[prefix + "down_proj.weight"] = normal(hidden, width, scale=size * width**-0.5)
    return weights


def _mixture(a: Architecture, prefix: str, normal: _Normal) -> Weights:
    """Larger than one MLP, since the probability of an expert scales its output."""
    weights = {prefix + "gate.weight": normal(a.experts, a.hidden, scale=2 * a.hidden**-0.5)}
    experts = [
        _mlp(a.hidden, a.intermediate, f"{prefix}experts.{number}.", normal, size=4.0)
        for number in range(a.experts)
    ]
    if a.fused_experts:
        matrices = zip(*(expert.values() for expert in experts), strict=True)
        gates, ups, downs = (torch.stack(each) for each in matrices)
        weights[prefix + "experts.gate_up_proj"] = torch.cat([gates, ups], dim=1)
        weights[prefix + "experts.down_proj"] = downs
    else:
        weights |= {name: w for expert in experts for name, w in expert.items()}
    weights |= _mlp(a.hidden, a.shared_intermediate, f"{prefix}shared_expert.", normal)
    weights[prefix + "shared_expert_gate.weight"] = normal(1, a.hidden, scale=a.hidden**-0.5)
    return weights


def _adapters(a: Architecture, base: Weights, normal: _Normal) -> Weights:
    """Far from zero, so that the gradients of both factors are of a fair size."""
    weights = {}
    for layer in range(a.layers):
        for part, kinds in LINEARS.items():
            for kind in kinds:
                module = f"model.layers.{layer}.{part}.{kind}_proj"
                rows, columns = base[f"{module}.weight"].shape
                down, up = adapter(module)
                weights[down] = normal(a.lora_rank, columns, scale=columns**-0.5)
                weights[up] = normal(rows, a.lora_rank, scale=0.5 * a.lora_rank**-0.5)
    return weights
