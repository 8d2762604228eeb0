"""The scope's linear layers of Megatron-core, for the estimator `sequence`.

| layer                | on a tensor-parallel rank           | with sequence parallelism        |
|----------------------|-------------------------------------|----------------------------------|
| ColumnParallelLinear | a slice of the outputs, all inputs  | inputs of a part of the tokens   |
| RowParallelLinear    | a slice of the inputs, all outputs  | output gradients of a part       |
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from pcr_plugin.distributed import (
    gather_lists,
    gather_tokens,
    group_of_all,
    is_first_of,
    rank_in,
    ranks_of,
    sum_over,
)
from pcr_plugin.estimators import SequenceRanks
from pcr_plugin.gradients import LinearLayer, Side
from pcr_plugin.verl.linear_layers import refuse_unread

_FIELDS = ("weight", "bias")


def megatron_linear_layers(
    chunks: Sequence[Any], names: Sequence[str], parameters: Sequence[nn.Parameter]
) -> list[LinearLayer]:
    """Find the modules that own the parameters of the scope. Every rank must call it.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules.
        names: in-scope parameters of this rank, by their names in the whole model.
        parameters: the same ones themselves.

    Raises:
        ValueError: a parameter, of any rank, is not one of a linear layer that gets all tokens.
    """
    owners = {
        parameter: (module, attribute)
        for chunk in chunks
        for module in chunk.modules()
        for attribute, parameter in module.named_parameters(recurse=False)
    }
    unread = [n for n, p in zip(names, parameters, strict=True) if not _is_read(*owners[p])]
    refuse_unread(sorted(gather_lists(unread, group_of_all())))
    members: dict[nn.Module, dict[str, int]] = {}
    for index, parameter in enumerate(parameters):
        module, attribute = owners[parameter]
        members.setdefault(module, {})[attribute] = index
    return [
        _layer(module, names[next(iter(indices.values()))], indices)
        for module, indices in members.items()
    ]


def sequence_ranks() -> SequenceRanks:
    """Tensor- and context-parallel ranks share sequences; with the data-parallel ones they are
    all that have parts of this pipeline stage's parameters.
    """
    from megatron.core import parallel_state as mpu

    parts: Any = mpu.get_tensor_and_context_parallel_group()
    everyone: Any = mpu.get_tensor_and_data_parallel_group(with_context_parallel=True)
    first = is_first_of(parts)
    return SequenceRanks(
        sum_parts=lambda values: sum_over(values, parts),
        sum_all=lambda values: sum_over(values, everyone),
        counts_rows=first,
        counts_sums=is_first_of(everyone),
        counts_units=first and mpu.get_pipeline_model_parallel_rank() == 0,
    )


def _is_read(module: nn.Module, attribute: str) -> bool:
    """TransformerEngine's layers may normalise their input first, where no hook sees it."""
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear

    known = type(module) in (ColumnParallelLinear, RowParallelLinear)
    return known and attribute in _FIELDS and not getattr(module, "is_expert", False)


def _layer(module: Any, of_member: str, indices: dict[str, int]) -> LinearLayer:
    from megatron.core.tensor_parallel import ColumnParallelLinear

    name = of_member.rpartition(".")[0]
    group = module.tp_group
    tokens = partial(gather_tokens, group=group)
    of_columns = isinstance(module, ColumnParallelLinear)
    whole, split = Side(width=module.input_size), module.output_size
    if not of_columns:
        whole, split = Side(width=module.output_size), module.input_size
    if module.sequence_parallel and ranks_of(group) > 1:
        whole = Side(width=whole.width, gather=tokens)
    here = Side(width=split, here=_slices(module, name, split))
    return LinearLayer(
        module=module,
        name=name,
        inputs=whole if of_columns else here,
        outputs=here if of_columns else whole,
        weight=indices.get("weight"),
        bias=indices.get("bias"),
        counts_bias=of_columns or is_first_of(group),
    )


def _slices(module: Any, name: str, width: int) -> list[slice]:
    """A rank of a gated MLP has a part of the gate and the same part of the other half."""
    ranks, rank = ranks_of(module.tp_group), rank_in(module.tp_group)
    gated = module.config.gated_linear_unit and name.endswith("linear_fc1")
    halves = 2 if gated else 1
    size, each = width // halves, width // halves // ranks
    return [slice(k * size + rank * each, k * size + (rank + 1) * each) for k in range(halves)]
