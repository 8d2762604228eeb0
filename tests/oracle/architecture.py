"""Sizes of a model, and which of its parameters are trained and which are a layer's MLP."""

from collections.abc import Iterable
from dataclasses import dataclass

# Modules of a decoder layer that get adapters, as PEFT's `all-linear` chooses them.
LINEARS = {"self_attn": ("q", "k", "v", "o"), "mlp": ("gate", "up", "down")}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of a Qwen2 or Qwen3 decoder; `heads` query heads share `key_heads` keys and values.

    Args:
        layers: number of decoder layers.
        hidden: width of the residual stream.
        heads: query heads.
        key_heads: heads of keys and values.
        intermediate: width of the MLP, with experts of each expert.
        vocabulary: number of tokens.
        rope_base: of the rotary position embedding.
        epsilon: of the norms.
        tied: the embedding is also the output layer; there is no `lm_head.weight`.
        normed_heads: the family is Qwen3: every head of queries and keys is normalised, and no
            linear module has a bias.
        lora_rank: rank of an adapter on every linear module but the output layer, which is then
            all that is trained; 0 without adapters.
        lora_alpha: an adapter's product is multiplied by `lora_alpha / lora_rank`.
        experts: number of experts that replace the MLP; 0 without.
        experts_per_token: experts that a token is sent to.
        shared_intermediate: width of the expert that sees every token.
        fused_experts: all experts of a layer are one tensor each for gate with up, and down;
            otherwise every expert has a module with three matrices.
    """

    layers: int
    hidden: int
    heads: int
    key_heads: int
    intermediate: int
    vocabulary: int
    rope_base: float = 10_000.0
    epsilon: float = 1e-6
    tied: bool = False
    normed_heads: bool = False
    lora_rank: int = 0
    lora_alpha: int = 0
    experts: int = 0
    experts_per_token: int = 2
    shared_intermediate: int = 0
    fused_experts: bool = True

    def __post_init__(self) -> None:
        """Adapters on experts have names of their own; no test needs them."""
        assert not (self.lora_rank and self.experts)

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


def adapter(module: str) -> tuple[str, str]:
    """Names of the two factors, (r, in) and (out, r), of a module's adapter, as PEFT has them.

    Args:
        module: without the parameter's own name: `model.layers.0.mlp.gate_proj`.
    """
    prefix = f"base_model.model.{module}"
    return f"{prefix}.lora_A.default.weight", f"{prefix}.lora_B.default.weight"


def trainable(architecture: Architecture, names: Iterable[str]) -> list[str]:
    """The parameters that have a gradient: the adapters if there are any, otherwise all."""
    if not architecture.lora_rank:
        return list(names)
    return [name for name in names if ".lora_" in name]


def mlp_members(architecture: Architecture, layer: int) -> list[str]:
    """Trained parameters of a layer's MLP: its adapters, all its experts or its three matrices.

    Routers are no part of it: neither the one that chooses experts nor the one that scales the
    shared expert.

    Args:
        architecture: of the model.
        layer: from 0.

    Returns:
        Names in the model's order.
    """
    mlp = f"model.layers.{layer}.mlp"
    if architecture.lora_rank:
        return [name for kind in LINEARS["mlp"] for name in adapter(f"{mlp}.{kind}_proj")]
    if not architecture.experts:
        return _matrices(mlp)
    shared = _matrices(f"{mlp}.shared_expert")
    if architecture.fused_experts:
        return [f"{mlp}.experts.gate_up_proj", f"{mlp}.experts.down_proj", *shared]
    experts = [_matrices(f"{mlp}.experts.{number}") for number in range(architecture.experts)]
    return [*(name for expert in experts for name in expert), *shared]


def _matrices(mlp: str) -> list[str]:
    return [f"{mlp}.{kind}_proj.weight" for kind in LINEARS["mlp"]]
