"""A language model small enough to be trained while one watches."""

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer


def build_model(
    tokenizer: Qwen2Tokenizer, *, layers: int, width: int, heads: int, positions: int
) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights, in float32.

    Args:
        tokenizer: gives the vocabulary and the special tokens.
        layers: decoder layers.
        width: of the residual stream; the MLPs are three times as wide.
        heads: attention heads, half as many key-value heads.
        positions: longest sequence.
    """
    # vLLM's CPU attention kernels want heads of 32 or more.
    assert width // heads >= 32, f"{heads} heads over {width}"
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    return Qwen2ForCausalLM(config)
