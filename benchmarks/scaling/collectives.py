"""Counts the collectives that an update calls, and their bytes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operator -> (kind, place of the whole tensor among its arguments).
_KINDS = {
    "c10d::allreduce_": ("all-reduce", 0),
    "c10d::_allgather_base_": ("all-gather", 0),
    "c10d::_reduce_scatter_base_": ("reduce-scatter", 1),
    "c10d::broadcast_": ("broadcast", 0),
    "c10d::allgather_": ("all-gather", 0),
    "c10d::reduce_scatter_": ("reduce-scatter", 1),
    "_c10d_functional::all_reduce": ("all-reduce", 0),
    "_c10d_functional::all_gather_into_tensor": ("all-gather", 0),
    "_c10d_functional::reduce_scatter_tensor": ("reduce-scatter", 0),
}
# Waiting, and what has no data.
_NOTHING = ("c10d::barrier", "wait_tensor", "_wrap_tensor_autograd")

# (kind, bytes of the whole tensor) -> times
Counts = Counter[tuple[str, int]]


class Collectives(TorchDispatchMode):
    """While it is on, every collective of this thread is counted.

    Attributes:
        counts: times per kind and size. Of an all-gather the size is what all ranks then have, of
            a reduce-scatter what each had before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counts = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # so that its own collectives come here, one by one
        name = func.name().partition(".")[0]
        if name in _KINDS:
            kind, place = _KINDS[name]
            self.counts[kind, _bytes(args[place])] += 1
        elif "c10d" in name and not name.endswith(_NOTHING):
            raise RuntimeError(f"{name}: a collective that is not counted")
        return func(*args, **(kwargs or {}))


def _bytes(tensors: Any) -> int:
    listed = tensors if isinstance(tensors, (list, tuple)) else [tensors]
    flat: list[Tensor] = []
    for one in listed:
        flat += one if isinstance(one, (list, tuple)) else [one]
    return sum(tensor.numel() * tensor.element_size() for tensor in flat)


def counted(run: Any) -> Counts:
    """The collectives that a function calls on this rank.

    Args:
        run: the function.
    """
    with Collectives() as mode, torch.autograd.set_multithreading_enabled(False):
        run()
    return mode.counts
