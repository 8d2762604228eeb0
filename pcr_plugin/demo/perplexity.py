"""How well a model still reads."""

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Tokenizer


def windows(text: str, tokenizer: Qwen2Tokenizer, length: int) -> Tensor:
    """A text as rows of equal length, the rest dropped; `[rows, length]` token ids."""
    tokens = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    rows = len(tokens) // length
    return tokens[: rows * length].view(rows, length)


@torch.inference_mode()
def perplexity(model: PreTrainedModel, rows: Tensor, batch: int = 32) -> float:
    """Of next-token prediction within each row.

    Args:
        model: a causal language model.
        rows: `[rows, length]` token ids.
        batch: rows at a time.
    """
    was_training = model.training
    model.eval()
    parts = [rows[first : first + batch] for first in range(0, len(rows), batch)]
    losses = [model(input_ids=part, labels=part).loss * len(part) for part in parts]
    model.train(was_training)
    return math.exp(float(sum(losses)) / len(rows))
