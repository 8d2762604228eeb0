"""What FSDP2 has gathered, between two backward passes through the same graph."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.fsdp import FSDPModule


@contextmanager
def stay_gathered(*modules: FSDPModule, recurse: bool = False) -> Iterator[None]:
    """What is gathered for a backward pass in here, or before it, stays so for the next one.

    Args:
        modules: after `fully_shard`.
        recurse: whether the modules in them, too.
    """
    for module in modules:
        module.set_reshard_after_backward(False, recurse=recurse)
    try:
        yield
    finally:
        for module in modules:
            module.set_reshard_after_backward(True, recurse=recurse)
