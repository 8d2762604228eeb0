"""Megatron-core's random states: dropout draws from one per tensor-parallel rank and kind."""

from typing import Any

import torch


class Generators:
    """The device's generator and those that Megatron-core keeps beside it, as one.

    Args:
        device_module: `torch.cuda` or what stands for it.
    """

    def __init__(self, device_module: Any) -> None:
        self._device = device_module

    def get_rng_state(self) -> tuple[Any, dict[str, Any]]:
        """Of the device, and of the tracker by name."""
        tracked = {name: _copy(state) for name, state in _tracker().get_states().items()}
        return self._device.get_rng_state(), tracked

    def set_rng_state(self, states: tuple[Any, dict[str, Any]]) -> None:
        """Go back to what `get_rng_state` has returned."""
        device, tracked = states
        self._device.set_rng_state(device)
        _tracker().set_states({name: _copy(state) for name, state in tracked.items()})

    def synchronize(self) -> None:
        """Wait for the device."""
        getattr(self._device, "synchronize", lambda: None)()


def _tracker() -> Any:
    from megatron.core.tensor_parallel import get_cuda_rng_tracker

    return get_cuda_rng_tracker()


def _copy(state: Any) -> Any:
    return state.clone_state() if isinstance(state, torch.Generator) else state.clone()
