"""Tiny models as folders that `from_pretrained` reads."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tests.oracle.architecture import LINEARS, Architecture, trainable
from tests.oracle.linear import Weights

# Folder of the adapters inside that of the model they belong to.
ADAPTER = "adapter"

# What the two layouts of experts add to a configuration or change in it.
_LISTED = {
    "architectures": ["ModuleListMoeForCausalLM"],
    "model_type": "module_list_moe",
    "router_aux_loss_coef": 0.001,
}
_NORMED = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False}
_FUSED = {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "decoder_sparse_step": 1,
    "norm_topk_prob": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.0,
}


def save_checkpoint(architecture: Architecture, weights: Weights, folder: Path) -> None:
    """Write a model, and its adapters into a folder of their own.

    Args:
        architecture: sizes.
        weights: name to float32 tensor.
        folder: made if missing; `ADAPTER` in it is what PEFT reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters = trainable(architecture, weights) if architecture.lora_rank else []
    base = {name: tensor for name, tensor in weights.items() if name not in adapters}
    (folder / "config.json").write_text(json.dumps(_model(architecture)))
    save_file(base, folder / "model.safetensors", metadata={"format": "pt"})
    if not adapters:
        return
    (folder / ADAPTER).mkdir(exist_ok=True)
    (folder / ADAPTER / "adapter_config.json").write_text(json.dumps(_adapter(architecture)))
    # PEFT inserts the adapter's name, which is `default`, when it loads the file.
    plain = {name.replace(".default.", "."): weights[name] for name in adapters}
    save_file(plain, folder / ADAPTER / "adapter_model.safetensors", metadata={"format": "pt"})


def _model(architecture: Architecture) -> dict[str, Any]:
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": architecture.hidden,
        "intermediate_size": architecture.intermediate,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.key_heads,
        "vocab_size": architecture.vocabulary,
        "rope_theta": architecture.rope_base,
        "rms_norm_eps": architecture.epsilon,
        "hidden_act": "silu",
        "max_position_embeddings": 128,
        "tie_word_embeddings": architecture.tied,
        "use_cache": False,
    }
    if architecture.normed_heads:
        config |= _NORMED | {"head_dim": architecture.head_width}
    if not architecture.experts:
        return config
    config |= {
        "num_experts": architecture.experts,
        "num_experts_per_tok": architecture.experts_per_token,
        "shared_expert_intermediate_size": architecture.shared_intermediate,
    }
    config["moe_intermediate_size"] = architecture.intermediate
    return config | (_FUSED if architecture.fused_experts else _LISTED)


def _adapter(architecture: Architecture) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": architecture.lora_rank,
        "lora_alpha": architecture.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [f"{kind}_proj" for kinds in LINEARS.values() for kind in kinds],
    }
