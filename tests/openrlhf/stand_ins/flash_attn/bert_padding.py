"""Names that `openrlhf.models.ring_attn_utils` imports; calling one is an error."""

from typing import Any

from einops import rearrange

__all__ = ["index_first_axis", "pad_input", "rearrange", "unpad_input"]


def _needs_cuda(*_: Any, **__: Any) -> Any:
    raise RuntimeError("packed sequences need flash-attn, which needs CUDA")


index_first_axis = pad_input = unpad_input = _needs_cuda
