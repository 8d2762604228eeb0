"""MiMo: a Qwen2 with a layer that predicts the token after the next; its checkpoint and bridge.

veRL's own path: `model.mtp.enable` and `enable_train`, with Megatron-core's local layers.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mbridge.core import register_model
from mbridge.models.mimo import MimoBridge
from mbridge.models.qwen2 import Qwen2Bridge
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_mtp_block_spec
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Qwen2Config

MODEL_TYPE = "mimo"
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


class MimoConfig(Qwen2Config):
    """Qwen2's configuration with a number of layers for later tokens."""

    model_type = MODEL_TYPE
    num_nextn_predict_layers: int = 0


class LocalMimoBridge(MimoBridge):
    """mbridge's own asks for TransformerEngine, with a configuration in place of a layer."""

    def _get_gptmodel_args(self) -> dict[str, Any]:
        arguments: dict[str, Any] = Qwen2Bridge._get_gptmodel_args(self)
        arguments["mtp_block_spec"] = get_gpt_mtp_block_spec(
            self.config, self._get_transformer_layer_spec(), use_transformer_engine=False
        )
        return arguments

    def _convert_mtp_param(self, name: str) -> list[str]:
        # The two norms of a local layer have names of their own.
        layer, _, norm = name.partition(".transformer_layer.")
        if "layernorm" in norm:
            as_in_decoder = f"{layer.replace('mtp', 'decoder', 1)}.{norm}"
            names = self._weight_name_mapping_mcore_to_hf(as_in_decoder)
            return [known.replace("model.layers", "model.mtp_layers") for known in names]
        others: list[str] = super()._convert_mtp_param(name)
        return others


def register() -> None:
    """Make transformers and mbridge know the model."""
    AutoConfig.register(MODEL_TYPE, MimoConfig, exist_ok=True)
    register_model(MODEL_TYPE)(LocalMimoBridge)


def predicting(checkpoint: Path) -> Path:
    """The same model with one layer for the token after the next; all ranks must ask.

    Args:
        checkpoint: folder of a Qwen2.

    Returns:
        Folder of the new checkpoint, beside the other.
    """
    folder = checkpoint.with_name(f"{checkpoint.name}_predicting")
    if dist.get_rank() == 0:
        _save(checkpoint, folder)
    dist.barrier()
    return folder


def _save(checkpoint: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    config = json.loads((checkpoint / _CONFIG).read_text())
    config |= {"model_type": MODEL_TYPE, "num_nextn_predict_layers": 1}
    weights = load_file(checkpoint / _WEIGHTS)
    (folder / _CONFIG).write_text(json.dumps(config))
    added = _layer(weights, config["hidden_size"], torch.Generator().manual_seed(7))
    save_file(weights | added, folder / _WEIGHTS, metadata={"format": "pt"})


def _layer(
    weights: dict[str, torch.Tensor], hidden: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    prefix, first = "model.mtp_layers.0.", "model.layers.0."

    def like(tensor: torch.Tensor) -> torch.Tensor:
        return tensor + tensor.std() * torch.randn(tensor.shape, generator=generator)

    added = {prefix + n.removeprefix(first): like(w) for n, w in weights.items() if first in n}
    for norm in ("token_layernorm", "hidden_layernorm", "final_layernorm"):
        added[f"{prefix}{norm}.weight"] = 1 + 0.1 * torch.randn(hidden, generator=generator)
    projection = torch.randn(hidden, 2 * hidden, generator=generator)
    added[f"{prefix}input_proj.weight"] = projection * (2 * hidden) ** -0.5
    return added
