"""A name that `openrlhf.models.ring_attn_utils` imports; calling it is an error."""

from typing import Any


def all_gather(*_: Any, **__: Any) -> Any:
    """Gathers over the ranks of a ring."""
    raise RuntimeError("ring attention needs flash-attn, which needs CUDA")
