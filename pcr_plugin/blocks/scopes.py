"""Parameter names that belong to a scope, for the model families veRL trains.

| family                                   | MLP parameters                                     |
|------------------------------------------|----------------------------------------------------|
| Llama, Qwen2/2.5/3, Mistral, Gemma, Phi3 | `layers.N.mlp.{gate,up,down,gate_up}_proj`         |
| Phi, GPT-NeoX, Falcon, GPT-2             | `...mlp.{fc1,fc2,dense_*,c_fc,c_proj}`             |
| Qwen2/3-MoE, DeepSeek                    | `layers.N.mlp.experts.*`, `shared_expert(s).*`     |
| Mixtral                                  | `layers.N.block_sparse_moe.experts.*`              |
| Megatron-core                            | `decoder.layers.N.mlp.linear_fc{1,2}`, `experts.*` |
"""

import re

# Wrappers that insert themselves into names: activation checkpointing, FSDP1, torch.compile.
_WRAPPERS = re.compile(r"(_checkpoint_wrapped_module|_fsdp_wrapped_module|_orig_mod)\.")

# The MLP of a numbered decoder layer; the group is the block that `pcr.block=module` makes.
MLP_OF_LAYER = re.compile(
    r"^(?P<module>(?:.*\.)?(?:layers|h|blocks|block)\.\d+\."
    r"(?:mlp|feed_forward|ffn|block_sparse_moe))\."
)
ATTENTION_OF_LAYER = re.compile(
    r"^(?P<module>(?:.*\.)?(?:layers|h|blocks|block)\.\d+\."
    r"(?:self_attn|self_attention|attention|attn|linear_attn))\."
)
# A router sends tokens to experts and stores nothing; norms are no knowledge either (Eq. 16
# leaves "LayerNorm" to plain addition). `layer_norm_weight` is TransformerEngine's fused norm,
# `shared_experts.gate_weight` Megatron-core's gate of the shared experts.
_NOT_PROJECTED = re.compile(
    r"\.(gate|router|shared_expert_gate|shared_experts\.gate_weight|e_score_correction_bias)(\.|$)"
    r"|norm|layer_norm_"
)
# A vision tower counts only when the user names it.
_VISION = re.compile(
    r"(^|\.)(visual|vision|vision_tower|vision_model|image_encoder|img_processor|vpm)\."
)


def plain_name(name: str) -> str:
    """The parameter's name without the wrappers that frameworks insert."""
    return _WRAPPERS.sub("", name)


def in_scope(name: str, scope: str | tuple[str, ...]) -> bool:
    """Whether the rule applies to a parameter.

    Args:
        name: the parameter's name, without wrappers.
        scope: `mlp`, `attention`, `all`, or regular expressions searched in the name.

    Returns:
        True inside the scope.
    """
    if isinstance(scope, tuple):
        return any(re.search(pattern, name) for pattern in scope)
    if scope == "all":
        return True
    layer = MLP_OF_LAYER if scope == "mlp" else ATTENTION_OF_LAYER
    inside = layer.match(name)
    if inside is None or _VISION.search(name):
        return False
    return _NOT_PROJECTED.search(name, inside.end("module")) is None
