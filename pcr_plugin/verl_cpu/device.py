"""What veRL expects of `torch.cuda`, for the CPU: the platform's `device_module` is this module.

`torch.cpu` has streams and events; memory and random states are added, with real figures: the
host's memory, and this process's share of it.
"""

import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch.cpu import Event, Stream, current_stream, stream

__all__ = ["Event", "Stream", "current_stream", "stream"]


def is_available() -> bool:
    return True


def current_device() -> torch.device:
    return torch.device("cpu")


def device_count() -> int:
    return 1


def set_device(device: Any) -> None:
    """There is only one."""


def get_device_name(device: Any = None) -> str:
    return "CPU"


def get_device_capability(device: Any = None) -> tuple[None, None]:
    return (None, None)


def get_device_properties(device: Any = None) -> SimpleNamespace:
    return SimpleNamespace(name="CPU", total_memory=mem_get_info()[1], major=0, minor=0)


def synchronize(device: Any = None) -> None:
    """Nothing is pending: kernels run on the calling thread."""


def empty_cache() -> None:
    """The allocator keeps no cache of its own."""


def ipc_collect() -> None:
    """Shared memory is used instead of device handles."""


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Not enforced."""


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Bytes of the host's memory: (available, total)."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def memory_allocated(device: Any = None) -> int:
    """Bytes resident in this process."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    return int(psutil.Process().memory_info().rss)


def memory_reserved(device: Any = None) -> int:
    return memory_allocated()


def max_memory_allocated(device: Any = None) -> int:
    """Most bytes that were ever resident in this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(peak, memory_allocated())  # the kernel updates the peak lazily


def max_memory_reserved(device: Any = None) -> int:
    return max_memory_allocated()


def reset_peak_memory_stats(device: Any = None) -> None:
    """The kernel keeps the peak for the life of the process."""


def manual_seed(seed: int) -> None:
    torch.manual_seed(seed)


manual_seed_all = manual_seed


def get_rng_state(device: Any = None) -> torch.Tensor:
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
    torch.set_rng_state(state)


MODULE = sys.modules[__name__]
