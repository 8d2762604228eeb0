"""Flash attention's part in Ulysses sequence parallelism, on a CPU.

veRL exchanges heads for tokens around `_flash_attention_forward`. Everything of that is real here
(slicing, all-to-all over gloo, gathering); only the kernel itself, which needs a GPU, is replaced
by torch's attention with an explicit mask over the packed sequences.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations import flash_attention
from transformers.masking_utils import flash_attention_mask
from verl.models.transformers import monkey_patch

# Value of `attn_implementation`.
PACKED = "packed_on_cpu"


def install() -> None:
    """Make the implementation known to transformers, and veRL's wrapper call it. Idempotent."""
    AttentionInterface.register(PACKED, _through_flash_attention)
    AttentionMaskInterface.register(PACKED, flash_attention_mask)
    monkey_patch._flash_attention_forward = packed_attention


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    query_length: int,
    *ignored: Any,
    position_ids: Tensor,
    softmax_scale: float | None = None,
    **settings: Any,
) -> Tensor:
    """Causal attention within each of the sequences that are packed into one row.

    Args:
        query: (1, T, heads, width).
        key: (1, T, heads of keys, width).
        value: as `key`.
        attention_mask: none, since nothing is padded.
        query_length: T.
        *ignored: not needed.
        position_ids: (1, T), 0 where a sequence starts.
        softmax_scale: factor of the scores.
        **settings: of the kernel.

    Returns:
        (1, T, heads, width).
    """
    assert attention_mask is None and query.shape[1] == query_length == position_ids.shape[-1]
    sequence = (position_ids[0] == 0).cumsum(dim=0)
    steps = torch.arange(query_length)
    allowed = (sequence[:, None] == sequence[None, :]) & (steps[:, None] >= steps[None, :])
    mixed = scaled_dot_product_attention(
        *(tensor.transpose(1, 2) for tensor in (query, key, value)),
        attn_mask=allowed,
        scale=softmax_scale,
        enable_gqa=True,
    )
    return mixed.transpose(1, 2)


def _through_flash_attention(*positional: Any, **named: Any) -> Any:
    return flash_attention.flash_attention_forward(*positional, **named)
