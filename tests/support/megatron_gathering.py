"""Whole tensors of a model that Megatron-core has cut, by Hugging Face names; every rank must ask.

Replicated tensors are this rank's own copies, so what ranks get is equal only if their copies are.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor, nn

# One model chunk's parameters to the tensors that are asked for.
_Values = dict[nn.Parameter, Tensor]


def whole_weights(engine: Any) -> dict[str, Tensor]:
    """Copies of all weights."""
    return _whole(engine, lambda chunk: {p: p.detach() for p in chunk.parameters()})


def whole_gradients(engine: Any) -> dict[str, Tensor]:
    """Copies of the gradients of all parameters, between the passes and the optimizer's step."""
    return _whole(engine, _main_gradients)


def _main_gradients(chunk: Any) -> _Values:
    """The gradients that the optimizer is given: averaged over data-parallel ranks.

    A distributed optimizer reads only the shard of every bucket that its rank owns; what stands in
    the rest of the buffer is neither averaged nor zero.
    """
    if not chunk.ddp_config.use_distributed_optimizer:
        return {p: p.main_grad for p in chunk.parameters()}
    values: _Values = {}
    for group in bucket_groups(chunk):
        for bucket in group.buckets:
            whole = _gathered_bucket(bucket, group.intra_distributed_optimizer_instance_group)
            values |= _cut(bucket, whole)
    return values


def _gathered_bucket(bucket: Any, group: dist.ProcessGroup) -> Tensor:
    shards = list(bucket.grad_data.chunk(group.size()))
    own = shards[group.rank()].clone()
    received = [torch.empty_like(own) for _ in shards]
    dist.all_gather(received, own, group=group)
    return torch.cat(received)


def _cut(bucket: Any, whole: Tensor) -> _Values:
    """Every parameter's part of a bucket; where it lies is read off its own gradient's address."""
    values = {}
    for parameter in bucket.params_list:
        distance = parameter.main_grad.data_ptr() - bucket.grad_data.data_ptr()
        start = distance // whole.element_size()
        values[parameter] = whole[start : start + parameter.numel()].view(parameter.shape)
    return values


def _whole(engine: Any, values_of: Callable[[Any], _Values]) -> dict[str, Tensor]:
    mine: dict[str, Tensor] = {}
    for chunk in engine.module:
        values = values_of(chunk)
        names = _names(engine, chunk)
        for parameter_name, parameter in unwrapped(chunk).named_parameters():
            name = names[parameter_name]
            joined = _joined(name, parameter, values[parameter])
            mine |= dict(zip(*engine.bridge._weight_to_hf_format(name, joined), strict=True))
    copies = {name: tensor.clone() for name, tensor in mine.items()}
    copies = _merged(copies, parallel_state.get_expert_model_parallel_group())
    return _merged(copies, parallel_state.get_pipeline_model_parallel_group())


def _merged(mine: dict[str, Tensor], group: dist.ProcessGroup) -> dict[str, Tensor]:
    """What this rank has, and what only others of the group have, in one order."""
    parts: list[dict[str, Tensor]] = [{}] * group.size()
    dist.all_gather_object(parts, mine, group=group)
    others = {name: tensor for part in parts for name, tensor in part.items()}
    return {name: mine.get(name, tensor) for name, tensor in others.items()}


def _names(engine: Any, chunk: Any) -> dict[str, str]:
    """Name in a chunk to name in the model: layers are counted over stages and chunks."""
    names: dict[str, str] = engine.bridge._weight_name_mapping_mcore_local_to_global(chunk)
    return names


def bucket_groups(chunk: Any) -> list[Any]:
    """Groups of the buckets that a chunk's gradients are reduced in."""
    return [*chunk.bucket_groups, *chunk.expert_parallel_bucket_groups]


def unwrapped(chunk: Any) -> Any:
    """The model under the wrappers of mixed precision and data parallelism."""
    while hasattr(chunk, "module"):
        chunk = chunk.module
    return chunk


def _joined(name: str, parameter: Any, value: Tensor) -> Tensor:
    """A tensor's parts on the tensor-parallel ranks, put together."""
    if not getattr(parameter, "tensor_model_parallel", False):
        return value
    group = parallel_state.get_tensor_model_parallel_group()
    if not getattr(parameter, "allreduce", True):
        # Experts on ranks of their own are cut over tensor-parallel ranks of their own.
        group = parallel_state.get_expert_tensor_parallel_group()
    parts = [torch.empty_like(value) for _ in range(group.size())]
    dist.all_gather(parts, value.contiguous(), group=group)
    dimension = parameter.partition_dim
    if "linear_fc1" in name:
        # Every rank has its part of the gate above its part of the other matrix.
        gates, ups = zip(*(part.chunk(2, dim=dimension) for part in parts), strict=True)
        return torch.cat([*gates, *ups], dim=dimension)
    return torch.cat(parts, dim=dimension)
