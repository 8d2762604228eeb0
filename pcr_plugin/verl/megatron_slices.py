"""Where Megatron-core keeps the gradient of every parameter, and who counts it.

Gradients live in flat buffers, cut into buckets. After a pass a bucket's `grad_data` holds, with
the distributed optimizer, the reduced gradient in this rank's shard of the bucket alone (the rest
is left over from before the reduction), and without it in all of it, on every data-parallel rank.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_WRAPPED = re.compile(r"^(module\.)+")
# An expert's place among those of its rank: Megatron-core's list of modules, and
# TransformerEngine's module with numbered tensors.
_EXPERT = re.compile(r"(\.experts\.(?:local_experts\.|linear_fc\d\.(?:weight|bias)))(\d+)")
_EMBEDDING = "embedding.word_embeddings.weight"


@dataclass(frozen=True, kw_only=True)
class BufferSlice:
    """A parameter's part of a gradient bucket.

    Args:
        name: in the whole model: layers are numbered over all pipeline stages, experts over all
            expert-parallel ranks.
        parameter: this rank's tensor-parallel part.
        bucket: Megatron-core's bucket, whose `grad_data` is flat.
        owned: elements of `grad_data` that are valid here; may be empty.
        in_model: whether this rank's part is one that no other tensor-parallel rank or pipeline
            stage has, or the first of equal ones.
        counted: the same among all ranks, data-parallel ones included.
        left: what to multiply this rank's gradient by, and leave in the bucket, so that the next
            pass's reduction gives it back to all who own it; 0 where another rank leaves it;
            `None` where Megatron-core may then add up the copies of several ranks.
        of_expert_ranks: whether it belongs to experts that are spread over expert-parallel ranks.
    """

    name: str
    parameter: Any
    bucket: Any
    owned: slice
    in_model: bool
    counted: bool
    left: float | None
    of_expert_ranks: bool


def buffer_slices(chunks: Sequence[Any]) -> list[BufferSlice]:
    """Every trainable parameter of this rank.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules, one per virtual pipeline stage.
    """
    return [found for chunk in chunks for found in _slices_of(chunk)]


def gradient_of(part: BufferSlice) -> Tensor:
    """The owned slice, as a view; to be asked for every time: offloading refills the storage."""
    gradient: Tensor = part.bucket.grad_data[part.owned]
    return gradient


def _slices_of(chunk: Any) -> Iterator[BufferSlice]:
    names = _global_names(chunk.module)
    sharded = chunk.ddp_config.use_distributed_optimizer
    for buffer in (*chunk.buffers, *chunk.expert_parallel_buffers):
        ranks, rank = buffer.data_parallel_group.size(), buffer.data_parallel_group.rank()
        averaged = ranks if chunk.ddp_config.average_in_collective else 1
        for bucket in buffer.buckets:
            size = bucket.grad_data.numel()
            shard = (rank * size // ranks, (rank + 1) * size // ranks) if sharded else (0, size)
            for parameter in bucket.params_list:
                first, last, _ = buffer.param_index_map[parameter]
                start = max(first - bucket.offset, shard[0])
                stop = min(last - bucket.offset, shard[1])
                spread = not getattr(parameter, "allreduce", True)
                in_model = _is_first_of_equals(parameter, spread)
                counted = in_model and (sharded or rank == 0)
                yield BufferSlice(
                    name=names[parameter],
                    parameter=parameter,
                    bucket=bucket,
                    owned=slice(start, max(start, stop)),
                    in_model=in_model,
                    counted=counted,
                    left=None
                    if _is_in_copies(parameter, spread)
                    else counted * averaged / buffer.gradient_scaling_factor,
                    of_expert_ranks=spread,
                )


def _is_first_of_equals(parameter: nn.Parameter, spread: bool) -> bool:
    """Megatron-core's own criteria for the gradient norm: a part of its own, or on the first of
    the tensor-parallel ranks; and not the copy of the embedding on the last pipeline stage.

    Experts that are spread over ranks have tensor-parallel ranks of their own.
    """
    from megatron.core import parallel_state as mpu
    from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
    from megatron.core.transformer.module import param_is_not_shared

    group = mpu.get_expert_tensor_parallel_group() if spread else None
    return bool(
        param_is_not_shared(parameter) and param_is_not_tensor_parallel_duplicate(parameter, group)
    )


def _is_in_copies(parameter: nn.Parameter, spread: bool) -> bool:
    """Whether tensor-parallel ranks, or all stages, hold the same. A tied embedding is no case:
    what its two stages leave is added up in every pass.
    """
    from megatron.core import parallel_state as mpu

    if getattr(parameter, "pipeline_parallel", False):
        return True
    own = getattr(parameter, "tensor_model_parallel", False)
    ranks = (
        mpu.get_expert_tensor_parallel_world_size()
        if spread
        else mpu.get_tensor_model_parallel_world_size()
    )
    return not own and ranks > 1


def _global_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """Names with the numbers of layers and experts in the whole model, and without wrappers."""
    modules = dict(model.named_modules())
    numbers = {
        name: layer.layer_number - 1
        for name, layer in modules.items()
        if re.search(r"\blayers\.\d+$", name) and hasattr(layer, "layer_number")
    }
    first = {
        name: experts.local_expert_indices[0]
        for name, experts in modules.items()
        if hasattr(experts, "local_expert_indices")
    }

    def global_name(name: str) -> str:
        return _renumber(_count_experts(name, first), numbers)

    return {
        # The last stage's copy of a tied embedding is the same parameter.
        parameter: _EMBEDDING if getattr(parameter, "shared", False) else global_name(name)
        for name, parameter in model.named_parameters()
    }


def _count_experts(name: str, first: dict[str, int]) -> str:
    """Count an expert over all ranks.

    Args:
        name: of a parameter.
        first: the number in the model of the first expert here, by the name of their layer's MLP.
    """
    offset = next((number for mlp, number in first.items() if name.startswith(mlp + ".")), 0)
    return _EXPERT.sub(lambda found: f"{found[1]}{int(found[2]) + offset}", name)


def _renumber(name: str, numbers: dict[str, int]) -> str:
    for prefix, number in numbers.items():
        if name.startswith(prefix + "."):
            name = f"{prefix.rpartition('.')[0]}.{number}{name[len(prefix) :]}"
            break
    return _WRAPPED.sub("", name)
