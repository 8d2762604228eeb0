"""The most memory that tensors take during an update, beside what they take between updates."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from verl.utils.device import get_device_name


@dataclass
class Peak:
    """Filled in at the end.

    Attributes:
        most: bytes of the allocator at the highest point, less those at the start.
        left: bytes at the end, less those at the start.
    """

    most: int = 0
    left: int = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure what runs inside, by CUDA's allocator. On a CPU see `peak_of`."""
    found = Peak()
    if get_device_name() == "cpu":
        yield found
        return
    torch.cuda.synchronize()
    start = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    yield found
    torch.cuda.synchronize()
    found.most = torch.cuda.max_memory_allocated() - start
    found.left = torch.cuda.memory_allocated() - start


def peak_of(events: Iterable[Any]) -> Peak:
    """The same from the allocations of a CPU in a profile with `profile_memory`.

    Of every tensor on the CPU torch's allocator tells the profiler, temporary ones of operators
    included. What another thread frees it does not see: with several ranks some of gloo's buffers,
    which are then counted to the end; `left` says how much these are at most. Nor does it see the
    end of what was there before the profile.

    Args:
        events: of `profile.profiler.kineto_results.events()`.
    """
    found = Peak()
    changes = [event for event in events if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        found.left += event.nbytes()
        found.most = max(found.most, found.left)
    return found
