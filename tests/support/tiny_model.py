"""Tiny Qwen2 models with random weights, and their Hugging Face checkpoints."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.oracle.model import Architecture, Weights

# No size is a multiple of 2 x 3, so that most tensors shard unevenly over 2 and over 3 ranks.
WIDE = Architecture(layers=4, hidden=20, heads=2, key_heads=1, intermediate=37, vocabulary=53)
# FSDP2 cuts dimension 0 into ceil(rows / ranks): 4 rows on 3 ranks are 2 + 2 + 0, so the third
# rank holds nothing of any MLP.
NARROW = Architecture(layers=3, hidden=4, heads=2, key_heads=2, intermediate=4, vocabulary=53)

MODELS = {"wide": WIDE, "narrow": NARROW}


def random_weights(architecture: Architecture, seed: int) -> Weights:
    """Weights under which the logits spread by about 1 and every gradient is of a fair size.

    Args:
        architecture: sizes.
        seed: of the generator.

    Returns:
        Name to float32 tensor, as the checkpoint has them.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    a = architecture
    weights = {"model.embed_tokens.weight": normal(a.vocabulary, a.hidden, scale=1.0)}
    outputs = {"q": a.hidden, "k": a.key_heads * a.head_width, "v": a.key_heads * a.head_width}
    for layer in range(a.layers):
        prefix = f"model.layers.{layer}."
        for kind, rows in outputs.items():
            name = f"{prefix}self_attn.{kind}_proj."
            weights[name + "weight"] = normal(rows, a.hidden, scale=a.hidden**-0.5)
            weights[name + "bias"] = normal(rows, scale=0.3)
        weights[prefix + "self_attn.o_proj.weight"] = normal(
            a.hidden, a.hidden, scale=a.hidden**-0.5
        )
        for kind in ("gate", "up"):
            weights[f"{prefix}mlp.{kind}_proj.weight"] = normal(
                a.intermediate, a.hidden, scale=a.hidden**-0.5
            )
        weights[prefix + "mlp.down_proj.weight"] = normal(
            a.hidden, a.intermediate, scale=1.5 * a.intermediate**-0.5
        )
        for kind in ("input", "post_attention"):
            weights[f"{prefix}{kind}_layernorm.weight"] = 1 + normal(a.hidden, scale=0.1)
    weights["model.norm.weight"] = 1 + normal(a.hidden, scale=0.1)
    weights["lm_head.weight"] = normal(a.vocabulary, a.hidden, scale=1.2 * a.hidden**-0.5)
    return weights


def perturbed(weights: Weights, relative: float, seed: int) -> Weights:
    """A copy whose every tensor is moved by a share of its own spread."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: w + relative * w.std() * torch.randn(w.shape, generator=generator)
        for name, w in weights.items()
    }


def save_checkpoint(architecture: Architecture, weights: Weights, folder: Path) -> None:
    """Write what `from_pretrained` reads.

    Args:
        architecture: sizes.
        weights: name to float32 tensor.
        folder: made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
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
        "tie_word_embeddings": False,
        "use_cache": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
