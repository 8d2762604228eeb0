"""ZeRO-3: parameters and gradients are cut, parameter by parameter.

| where                             | what, on this rank                                       |
|-----------------------------------|----------------------------------------------------------|
| `fp16_groups[g]`                  | parameters of group g                                    |
| `averaged_gradients[g]`           | their parts after a boundary, padded to the same length  |
| `grad_partitions_flat_buffer`     | what these are views of                                  |
| `fp32_partitioned_groups_flat[g].grad` | the parts, with an offloaded optimizer              |
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.distributed import rank_in
from pcr_plugin.openrlhf.slots import OfEngine, copied, restored, set_aside, written_back


class ShardedSlots(OfEngine):
    """Implements `Slots` on DeepSpeedZeroOptimizer_Stage3.

    Args:
        engine: DeepSpeed's engine.
    """

    counted = True

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self._rank = rank_in(self._optimizer.dp_process_group)

    @property
    def device(self) -> torch.device:
        """Where the gradients end up."""
        device: torch.device = self._optimizer.grad_partitions_flat_buffer.device
        return device

    def expect(self) -> None:
        """The first micro-batch of a window is copied, later ones would be added."""
        self._optimizer.micro_step_id = 0
        self._optimizer._epilogue_ran_this_backward = False

    @torch.no_grad()
    def collect(self) -> list[Tensor | None]:
        """Copy this rank's parts, without padding, and empty the buffer."""
        optimizer = self._optimizer
        shards: list[Tensor | None] = [None] * len(self.parameters)
        for group, members in enumerate(optimizer.fp16_groups):
            for parameter, part in zip(members, self._parts(group), strict=True):
                index = self._index.get(id(parameter))
                if index is not None:
                    shards[index] = copied(part)[: self._filled(parameter)]
            if optimizer.offload_optimizer:
                optimizer.fp32_partitioned_groups_flat[group].grad.zero_()
        # What a later pass does not reach would otherwise still be there.
        optimizer.grad_partitions_flat_buffer.zero_()
        if optimizer.offload_optimizer:
            optimizer.norm_for_param_grads = {}
        return shards

    def _parts(self, group: int) -> Sequence[Tensor]:
        optimizer = self._optimizer
        if not optimizer.offload_optimizer:
            found: Sequence[Tensor] = optimizer.averaged_gradients[group]
            return found
        flat = optimizer.fp32_partitioned_groups_flat[group].grad
        return [flat.narrow(0, *self._place(p)) for p in optimizer.fp16_groups[group]]

    def _place(self, parameter: Any) -> tuple[int, int]:
        """Offset and length in the flat gradient of its group."""
        optimizer = self._optimizer
        _, offset, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
        return offset, length

    def _filled(self, parameter: Any) -> int:
        """Elements of this rank's part that are not padding."""
        length = int(parameter.ds_tensor.numel())
        return min(max(int(parameter.ds_numel) - self._rank * length, 0), length)

    @torch.no_grad()
    def put(self, shards: Sequence[Tensor | None]) -> None:
        """Fill the slots in float32, whatever the gradients were reduced in."""
        optimizer = self._optimizer
        for group, members in enumerate(optimizer.fp16_groups):
            parts = [self._padded(parameter, shards) for parameter in members]
            if not optimizer.offload_optimizer:
                optimizer.averaged_gradients[group] = parts
                continue
            flat = optimizer.fp32_partitioned_groups_flat[group].grad
            for parameter, part in zip(members, parts, strict=True):
                flat.narrow(0, *self._place(parameter)).copy_(part)
                # Clipping goes by norms that DeepSpeed has taken of what was there before.
                identity = optimizer.get_param_id(parameter)
                optimizer.norm_for_param_grads[identity] = part.norm(2)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Also the buffer of this rank's parts, of which a copy is made."""
        optimizer = self._optimizer
        counters = ["micro_step_id", "_epilogue_ran_this_backward"]
        with ExitStack() as around:
            around.enter_context(super().untouched())
            around.enter_context(restored(optimizer, counters))
            around.enter_context(set_aside(optimizer.averaged_gradients))
            around.enter_context(written_back([optimizer.grad_partitions_flat_buffer]))
            if optimizer.offload_optimizer:
                around.enter_context(restored(optimizer, ["norm_for_param_grads"]))
                flat = [part.grad for part in optimizer.fp32_partitioned_groups_flat]
                around.enter_context(written_back(flat))
            yield

    def _padded(self, parameter: Any, shards: Sequence[Tensor | None]) -> Tensor:
        length = parameter.ds_tensor.numel()
        part = torch.zeros(length, dtype=torch.float32, device=self.device)
        index = self._index.get(id(parameter))
        shard = None if index is None else shards[index]
        if shard is not None:
            part[: shard.numel()] = shard
        return part
