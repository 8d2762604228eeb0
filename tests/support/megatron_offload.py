"""Offloading with veRL's Megatron engine where both sides are the same memory.

With the CPU for a device the engine takes every move for one to the device, and frees nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

_ENGINE = "verl.workers.engine"


@contextmanager
def moves_when_built() -> Iterator[None]:
    """The engine has a device to leave: parameters and gradients are freed, and filled again."""
    with patch(f"{_ENGINE}.megatron.transformer_impl.get_device_name", lambda: "elsewhere"):
        yield


@contextmanager
def moves() -> Iterator[None]:
    """The same for the contexts that bring an engine to the device, and away from it.

    Not while it is built: the name is also asked for to find its class.
    """
    with moves_when_built(), patch(f"{_ENGINE}.base.get_device_name", lambda: "elsewhere"):
        yield


def bytes_in_buffers(engine: Any) -> int:
    """Of parameters and gradients, all chunks together; 0 while they are offloaded.

    Args:
        engine: with Megatron-core's distributed optimizer, without which parameters have no buffer.
    """
    buffers = [
        b for chunk in engine.module for b in (*chunk.buffers, *chunk.expert_parallel_buffers)
    ]
    tensors = [tensor for buffer in buffers for tensor in (buffer.grad_data, buffer.param_data)]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)
