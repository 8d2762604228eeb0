"""One network device for all gloo groups of a process.

torch opens a device for every group, with a thread that wakes a hundred times a second and a port,
until the process ends; FSDP makes a group or more for every engine, Megatron-core dozens. Four
processes of the latter spend a third of two cores on waking up.
"""

from datetime import timedelta
from functools import cache
from typing import Any

from torch.distributed import ProcessGroupGloo, distributed_c10d


@cache
def _device() -> Any:
    return ProcessGroupGloo.create_default_device()


class SharedGloo(ProcessGroupGloo):
    """torch's own groups, as `torch.distributed` makes them, on the one device."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        options = ProcessGroupGloo._Options()
        options._devices = [_device()]
        options._timeout = timeout
        super().__init__(store, rank, size, options)


def install() -> None:
    """For every group from now on."""
    distributed_c10d.ProcessGroupGloo = SharedGloo  # type: ignore[misc]
