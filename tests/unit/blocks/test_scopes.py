"""Names that no tiny Hugging Face model has: Megatron-core, PEFT, remote code, wrappers."""

import pytest

from pcr_plugin.blocks import in_scope, partition, plain_name

MEGATRON_MLP = [
    "decoder.layers.0.mlp.linear_fc1.weight",
    "decoder.layers.0.mlp.linear_fc1.bias",
    "decoder.layers.0.mlp.linear_fc2.weight",
    "module.module.decoder.layers.17.mlp.linear_fc1.weight",
    "language_model.decoder.layers.3.mlp.linear_fc2.weight",
    "decoder.layers.1.mlp.experts.linear_fc1.weight0",
    "decoder.layers.1.mlp.experts.linear_fc2.weight127",
    "decoder.layers.1.mlp.experts.local_experts.5.linear_fc1.weight",
    "decoder.layers.1.mlp.experts.weight1",
    "decoder.layers.1.mlp.shared_experts.linear_fc1.weight",
    "decoder.layers.0.mlp.linear_fc1.to_wrap.weight",
    "decoder.layers.0.mlp.linear_fc1.adapter.linear_in.weight",
]
MEGATRON_NOT_MLP = [
    "decoder.layers.0.mlp.linear_fc1.layer_norm_weight",
    "decoder.layers.0.mlp.linear_fc1.layer_norm_bias",
    "decoder.layers.1.mlp.router.weight",
    "decoder.layers.1.mlp.router.expert_bias",
    "decoder.layers.1.mlp.shared_experts.gate_weight",
    "decoder.layers.0.pre_mlp_layernorm.weight",
    "decoder.layers.0.input_layernorm.weight",
    "decoder.final_layernorm.weight",
    "embedding.word_embeddings.weight",
    "output_layer.weight",
    "vision_model.decoder.layers.0.mlp.linear_fc1.weight",
]
MEGATRON_ATTENTION = [
    "decoder.layers.0.self_attention.linear_qkv.weight",
    "decoder.layers.0.self_attention.linear_qkv.bias",
    "decoder.layers.0.self_attention.linear_proj.weight",
    "decoder.layers.0.self_attention.linear_kv_up_proj.weight",
]
MEGATRON_NOT_ATTENTION = [
    "decoder.layers.0.self_attention.linear_qkv.layer_norm_weight",
    "decoder.layers.0.self_attention.q_layernorm.weight",
    "decoder.layers.0.self_attention.k_layernorm.weight",
    "decoder.layers.0.mlp.linear_fc1.weight",
]
# Spelled by other libraries or by code that comes with a checkpoint.
OTHER_MLP = [
    "base_model.model.model.layers.0.mlp.gate_proj.lora_A.default.weight",
    "base_model.model.model.layers.0.mlp.down_proj.base_layer.weight",
    "model.layers.3.block_sparse_moe.experts.7.w1.weight",
    "transformer.h.3.mlp.c_fc.weight",
    "transformer.h.3.mlp.dense_h_to_4h.bias",
    "llm.model.layers.0.mlp.up_proj.weight",
]
OTHER_NOT_MLP = [
    "model.layers.3.block_sparse_moe.gate.weight",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
    "vpm.encoder.layers.3.mlp.fc1.weight",
    "model.embed_tokens_extend.image_embed.img_processor.encoder.layers.0.mlp.fc1.weight",
    "vision_tower.encoder.blocks.0.mlp.fc0.weight",
    "model.layers.0.mlp_gate.weight",
    "multi_modal_projector.mlp.0.weight",
    "mlp.weight",
]


@pytest.mark.parametrize("name", MEGATRON_MLP + OTHER_MLP)
def test_in_the_mlp_scope(name: str) -> None:
    assert in_scope(name, "mlp")
    assert not in_scope(name, "attention")


@pytest.mark.parametrize("name", MEGATRON_NOT_MLP + MEGATRON_ATTENTION + OTHER_NOT_MLP)
def test_not_in_the_mlp_scope(name: str) -> None:
    assert not in_scope(name, "mlp")


@pytest.mark.parametrize("name", MEGATRON_ATTENTION)
def test_in_the_attention_scope(name: str) -> None:
    assert in_scope(name, "attention")


@pytest.mark.parametrize("name", MEGATRON_NOT_ATTENTION)
def test_not_in_the_attention_scope(name: str) -> None:
    assert not in_scope(name, "attention")


@pytest.mark.parametrize("name", MEGATRON_NOT_MLP + OTHER_NOT_MLP)
def test_everything_can_be_named(name: str) -> None:
    """`all`, or a pattern: also the vision tower and the router, if somebody wants them."""
    assert in_scope(name, "all")
    assert in_scope(name, ("nowhere", name.replace(".", r"\.") + "$"))
    assert not in_scope(name, ("nowhere",))


def test_megatron_experts_are_one_block() -> None:
    names = [name for name in MEGATRON_MLP if name.startswith("decoder.layers.1.")]
    (block,) = partition(names, "mlp")
    assert block.name == "decoder.layers.1.mlp"
    assert block.label == "1.mlp"
    assert block.parameters == tuple(names)


def test_lora_adapters_share_the_block_of_their_mlp() -> None:
    names = [
        f"base_model.model.model.layers.0.mlp.{part}_proj.lora_{side}.default.weight"
        for part in ("gate", "up", "down")
        for side in "AB"
    ]
    (block,) = partition(names, "mlp")
    assert block.parameters == tuple(names)
    assert block.label == "0.mlp"


@pytest.mark.parametrize(
    "wrapped",
    [
        "_fsdp_wrapped_module.model.layers.0._checkpoint_wrapped_module.mlp.up_proj.weight",
        "_orig_mod.model.layers.0.mlp._orig_mod.up_proj.weight",
        "model.layers.0.mlp.up_proj.weight",
    ],
)
def test_plain_names(wrapped: str) -> None:
    assert plain_name(wrapped) == "model.layers.0.mlp.up_proj.weight"
