"""Scopes on real Hugging Face models, built without memory on the meta device.

The expectation comes from the modules and not from names: the MLP scope must be exactly what
lives in a decoder layer's feed-forward module, less its router and norms.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)

from pcr_plugin.blocks import in_scope, partition

LAYERS = 2
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MOE = {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}
_DEEPSEEK = {
    "n_routed_experts": 4,
    "moe_intermediate_size": 8,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 2,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
    "head_dim": 4,
}
# model type -> (what its configuration needs, tensors of the MLP in the last layer)
GATED = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"}
EXPERTS = {"experts.gate_up_proj", "experts.down_proj"}
_BIASED = {"weight", "bias"}
# Endings of the class names of a layer's two parts.
FEED_FORWARD = ("MLP", "SparseMoeBlock", "MoE")
ATTENTION = ("Attention",)
TEXT: dict[str, tuple[dict[str, Any], set[str]]] = {
    "llama": ({"mlp_bias": True}, GATED | {n.replace("weight", "bias") for n in GATED}),
    "qwen2": ({}, GATED),
    "qwen3": ({}, GATED),
    "mistral": ({}, GATED),
    "gemma": ({}, GATED),
    "gemma2": ({}, GATED),
    "gemma3_text": ({}, GATED),
    "olmo2": ({}, GATED),
    "phi": ({"num_key_value_heads": 2}, {f"fc{i}.{x}" for i in (1, 2) for x in _BIASED}),
    "phi3": ({}, {"gate_up_proj.weight", "down_proj.weight"}),
    "gpt_neox": ({}, {f"dense_{n}.{x}" for n in ("h_to_4h", "4h_to_h") for x in _BIASED}),
    "qwen2_moe": (
        {"shared_expert_intermediate_size": 8, **_MOE},
        EXPERTS | {f"shared_expert.{name}" for name in GATED},
    ),
    "qwen3_moe": (_MOE, EXPERTS),
    "mixtral": ({"num_local_experts": 4}, EXPERTS),
    "gpt_oss": ({"num_local_experts": 4}, EXPERTS | {f"{name}_bias" for name in EXPERTS}),
    "deepseek_v3": (_DEEPSEEK, EXPERTS | {f"shared_experts.{name}" for name in GATED}),
}


def on_meta(kind: Any, config: Any) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = kind.from_config(config)
    return model


@pytest.fixture(scope="module", params=TEXT)
def text_model(request: pytest.FixtureRequest) -> tuple[str, PreTrainedModel]:
    values, _ = TEXT[request.param]
    config = AutoConfig.for_model(request.param, **SMALL | values)
    return request.param, on_meta(AutoModelForCausalLM, config)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of the language model's layers, by what it holds and not by its name."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return next(m for m in lists if len(m) and "Layer" in type(m[0]).__name__)


def part_of_layer(layer: nn.Module, endings: tuple[str, ...]) -> nn.Module:
    """The child of a layer whose class is named so."""
    found = [c for c in layer.children() if type(c).__name__.endswith(endings)]
    assert len(found) == 1, [type(c).__name__ for c in layer.children()]
    return found[0]


def learned(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters without those of routers and norms, told by the module that owns them."""
    left_out = ("router", "norm", "sharedexpertgate")
    for name, parameter in module.named_parameters():
        owner = module.get_submodule(name.rpartition(".")[0])
        kind = type(owner).__name__.lower()
        is_gate_of_shared = name.startswith("shared_expert_gate")
        if not any(word in kind for word in left_out) and not is_gate_of_shared:
            yield name, parameter


def scoped(model: nn.Module, scope: str) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if in_scope(name, scope)}


def test_the_mlp_scope_is_the_feed_forward_modules(
    text_model: tuple[str, PreTrainedModel],
) -> None:
    name, model = text_model
    expected = {
        id(p)
        for layer in decoder_layers(model)
        for _, p in learned(part_of_layer(layer, FEED_FORWARD))
    }
    assert {id(p) for p in scoped(model, "mlp").values()} == expected
    last = part_of_layer(decoder_layers(model)[-1], FEED_FORWARD)
    assert {n for n, p in last.named_parameters() if id(p) in expected} == TEXT[name][1]


def test_the_attention_scope_is_the_attention_modules(
    text_model: tuple[str, PreTrainedModel],
) -> None:
    _, model = text_model
    expected = {
        id(p)
        for layer in decoder_layers(model)
        for _, p in learned(part_of_layer(layer, ATTENTION))
    }
    assert {id(p) for p in scoped(model, "attention").values()} == expected


def test_one_block_per_layer_and_unique_labels(text_model: tuple[str, PreTrainedModel]) -> None:
    _, model = text_model
    names = [name for name, _ in model.named_parameters()]
    for scope in ("mlp", "attention"):
        blocks = partition(names, scope)
        labels = [block.label for block in blocks]
        assert len(blocks) == LAYERS
        assert [label.split(".")[0] for label in labels] == [str(i) for i in range(LAYERS)]
        assert len(set(labels)) == LAYERS
    tensors = partition(names, "all", "tensor")
    assert [block.parameters for block in tensors] == [(name,) for name in names]
    assert len({block.label for block in tensors}) == len(names)


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "mistral3"])
def test_a_vision_tower_counts_only_when_it_is_named(kind: str) -> None:
    config = AutoConfig.for_model(kind)
    config.text_config.num_hidden_layers = LAYERS
    for key in ("depth", "num_hidden_layers"):
        if hasattr(config.vision_config, key):
            setattr(config.vision_config, key, LAYERS)
    model = on_meta(AutoModelForImageTextToText, config)
    names = [name for name, _ in model.named_parameters()]
    blocks = partition(names, "mlp")
    assert len(blocks) == LAYERS
    assert all(".language_model." in block.name for block in blocks)
    tower = [n for n in names if "vis" in n and (".mlp." in n or ".feed_forward." in n)]
    assert tower, "the model has a vision tower with MLPs"
    named = partition(names, (r"vis.*\.\d+\.(mlp|feed_forward)\.",))
    assert len(named) == LAYERS
    assert {n for block in named for n in block.parameters} <= set(tower)
