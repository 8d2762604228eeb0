"""Sizes of the models that are counted are those of the real ones."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.shapes import SHAPES

# As published with the models.
PARAMETERS = {
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
}


@pytest.mark.parametrize("name", SHAPES)
def test_number_of_parameters(name: str) -> None:
    assert SHAPES[name].parameters == PARAMETERS[name]


def test_parts_are_those_of_transformers() -> None:
    shape = SHAPES["qwen2.5-0.5b"]
    config = Qwen2Config(
        hidden_size=shape.width,
        num_hidden_layers=1,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.mlp,
        vocab_size=shape.vocabulary,
    )
    with torch.device("meta"):
        [layer] = AutoModelForCausalLM.from_config(config).model.layers
    assert sum(p.numel() for p in layer.parameters()) == shape.layer_parameters
    assert sum(p.numel() for p in layer.mlp.parameters()) == shape.mlp_parameters
