"""veRL's platform interface for the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase

from pcr_plugin.verl_cpu import device, rollout_environment


class CPUPlatform(PlatformBase):
    """Gloo, one device, no streams; what has no meaning on a CPU does nothing."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return device.MODULE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """Never by itself: a CPU is everywhere, and the platform is opt-in."""
        return False

    def current_device(self) -> torch.device:
        """The device and not an index: `tensor.to(0)` means the first accelerator."""
        return device.current_device()

    def device_count(self) -> int:
        return device.device_count()

    def set_device(self, device_index: int) -> None:
        device.set_device(device_index)

    def synchronize(self, device_index: int | None = None) -> None:
        device.synchronize()

    def manual_seed(self, seed: int) -> None:
        device.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        device.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """The settings are those of the CUDA allocator."""

    def empty_cache(self) -> None:
        device.empty_cache()

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return device.get_device_capability()

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "PCR_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        """No device profiler."""

    def profiler_stop(self) -> None:
        """No device profiler."""

    def ray_resource_name(self) -> str:
        """One of the two names that veRL's check of the cluster counts, "GPU" and "NPU".

        Ray hides real GPUs behind `CUDA_VISIBLE_DEVICES` when it hands out the first.
        """
        return "NPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        """Device handles are not; veRL then sends weights through shared memory."""
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        """Settings of vLLM's CPU backend."""
        return rollout_environment.variables()

    def cudart(self) -> Any:
        return None
