"""ZeRO-1 and 2: parameters are whole, flat gradients are cut over the ranks.

| where                                    | what, on this rank                                |
|------------------------------------------|---------------------------------------------------|
| `params_in_partition[g]`                 | parameters of group g that reach into its part    |
| `averaged_gradients[g]`                  | their parts after a boundary, then padding        |
| `first_offset[g]`                        | elements of the first that are another rank's     |
| `single_partition_of_fp32_groups[g].grad` | the part, with an offloaded optimizer            |
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from pcr_plugin.openrlhf.slots import OfEngine, copied, restored, set_aside, written_back

# `setup_buckets` adds one before the first gradient; with 0 offloading copies and does not add.
_BEFORE_FIRST = -1


class PartitionedSlots(OfEngine):
    """Implements `Slots` on DeepSpeedZeroOptimizer.

    Args:
        engine: DeepSpeed's engine.
    """

    counted = True

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self._places = [
            _places([p.numel() for p in members], int(first), int(size))
            for members, first, size in zip(
                self._optimizer.params_in_partition,
                self._optimizer.first_offset,
                self._optimizer.partition_size,
                strict=True,
            )
        ]

    @property
    def device(self) -> torch.device:
        """Where the optimizer is."""
        device: torch.device = self._optimizer.single_partition_of_fp32_groups[0].device
        return device

    def expect(self) -> None:
        """Nothing of an earlier pass is added."""
        self._optimizer.micro_step_id = _BEFORE_FIRST

    @torch.no_grad()
    def collect(self) -> list[Tensor | None]:
        """Copy this rank's parts, and empty every place that a later pass would add to."""
        optimizer = self._optimizer
        self._wait()
        shards: list[Tensor | None] = [None] * len(self.parameters)
        for group, members in enumerate(optimizer.params_in_partition):
            for parameter, part in zip(members, self._parts(group), strict=False):
                shards[self._index[id(parameter)]] = copied(part)
            if optimizer.cpu_offload:
                # What a later pass does not reach would otherwise still be there.
                optimizer.single_partition_of_fp32_groups[group].grad.zero_()
            else:
                optimizer.averaged_gradients[group] = None
                optimizer.all_grad_tensors[group] = None
        for parameter in self.parameters:
            parameter.grad = None
            # With its own type for accumulation it survives until the next forward pass.
            parameter.grad_accum = None
        if optimizer.cpu_offload:
            optimizer.norm_for_param_grads = {}
        return shards

    def _wait(self) -> None:
        """Until what is on its way to the host is there: DeepSpeed itself waits in its step."""
        if self._optimizer.cpu_offload:
            get_accelerator().synchronize()

    def _parts(self, group: int) -> Sequence[Tensor]:
        """The parts of `params_in_partition[group]`; what follows them is padding."""
        optimizer = self._optimizer
        if not optimizer.cpu_offload:
            found: Sequence[Tensor] = optimizer.averaged_gradients[group]
            return found
        whole = optimizer.single_partition_of_fp32_groups[group].grad.view(-1)
        return [whole.narrow(0, *place) for place in self._places[group]]

    @torch.no_grad()
    def put(self, shards: Sequence[Tensor | None]) -> None:
        """Fill the slots in float32, whatever the gradients were reduced in."""
        optimizer = self._optimizer
        for group, members in enumerate(optimizer.params_in_partition):
            size, places = int(optimizer.partition_size[group]), self._places[group]
            flat = torch.zeros(size, dtype=torch.float32, device=self.device)
            for parameter, place in zip(members, places, strict=True):
                shard = shards[self._index[id(parameter)]]
                if shard is not None:
                    flat.narrow(0, *place).copy_(shard)
            if optimizer.cpu_offload:
                self._put_on_host(group, flat)
            else:
                used = sum(length for _, length in places)
                padding = [flat[used:]] if used < size else []
                optimizer.averaged_gradients[group] = [flat.narrow(0, *p) for p in places] + padding

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Also sums by group, sums of a type of their own, and what offloading has copied."""
        optimizer = self._optimizer
        # ZeRO-1 keeps its buckets until it reduces, and counts again when it makes new ones.
        count = optimizer.micro_step_id - int(optimizer.ready_for_gradients)
        optimizer._release_ipg_buffers()
        self._wait()
        with ExitStack() as around:
            around.callback(setattr, optimizer, "micro_step_id", count)
            around.enter_context(super().untouched())
            around.enter_context(restored(optimizer, ["_epilogue_ran_this_backward"]))
            for parameter in self.parameters:
                around.enter_context(restored(parameter, ["grad_accum"]))
                parameter.grad_accum = None
            around.enter_context(set_aside(optimizer.averaged_gradients))
            around.enter_context(set_aside(optimizer.all_grad_tensors))
            if optimizer.cpu_offload:
                around.enter_context(restored(optimizer, ["norm_for_param_grads"]))
                around.enter_context(restored(optimizer, ["local_overflow"]))
                flat = [part.grad for part in optimizer.single_partition_of_fp32_groups]
                around.enter_context(written_back(flat))
            yield

    def _put_on_host(self, group: int, flat: Tensor) -> None:
        """The flat gradient, and the norms that clipping goes by: DeepSpeed takes them earlier."""
        optimizer = self._optimizer
        optimizer.single_partition_of_fp32_groups[group].grad.view(-1).copy_(flat)
        members = optimizer.params_in_partition[group]
        for parameter, place in zip(members, self._places[group], strict=True):
            norm = flat.narrow(0, *place).norm(2)
            optimizer.norm_for_param_grads[optimizer.get_param_id(parameter)] = norm


def _places(sizes: Sequence[int], first_offset: int, partition: int) -> list[tuple[int, int]]:
    """Offset and length of every parameter in this rank's part of a flat gradient.

    Args:
        sizes: elements of the parameters that reach into it.
        first_offset: elements of the first one that are on an earlier rank.
        partition: elements of the part.
    """
    places, start = list[tuple[int, int]](), 0
    for index, size in enumerate(sizes):
        length = min(size - (0 if index else first_offset), partition - start)
        places.append((start, length))
        start += length
    return places
