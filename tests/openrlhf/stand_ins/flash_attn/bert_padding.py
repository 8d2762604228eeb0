"""What packs and pads in flash-attn, from transformers, which has it for those without flash-attn.

transformers' own attention then keeps packed rows apart by their position ids.
"""

from einops import rearrange
from torch import Tensor
from transformers.modeling_flash_attention_utils import _pad_input as pad_input
from transformers.modeling_flash_attention_utils import _unpad_input as unpad_input

__all__ = ["index_first_axis", "pad_input", "rearrange", "unpad_input"]


def index_first_axis(rows: Tensor, indices: Tensor) -> Tensor:
    """Of a tensor whose first two axes are one already, which transformers' is not."""
    return rows[indices]
