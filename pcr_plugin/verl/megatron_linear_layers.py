"""The scope's linear layers of Megatron-core, for the estimator `sequence`.

| layer                | on a tensor-parallel rank           | with sequence parallelism        |
|----------------------|-------------------------------------|----------------------------------|
| ColumnParallelLinear | a slice of the outputs, all inputs  | inputs of a part of the tokens   |
| RowParallelLinear    | a slice of the inputs, all outputs  | output gradients of a part       |
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from pcr_plugin.config.checks import refuse_unread
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
from pcr_plugin.verl import transformer_engine

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
    unread = [n for n, p in zip(names, parameters, strict=True) if not _is_read(n, *owners[p])]
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


def _is_read(name: str, module: Any, attribute: str) -> bool:
    """Experts get some of the tokens; shared ones may gather them by themselves. Multi-token
    prediction runs the output layer once more.
    """
    from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear

    known = type(module) in (ColumnParallelLinear, RowParallelLinear)
    known = known or transformer_engine.is_linear(module)
    if not known or attribute not in _FIELDS or "experts." in name:
        return False
    twice = name.startswith("output_layer.") and getattr(module.config, "mtp_num_layers", None)
    return not twice


def _shape_of(module: Any) -> transformer_engine.Shape:
    from megatron.core.tensor_parallel import ColumnParallelLinear

    if transformer_engine.is_linear(module):
        return transformer_engine.shape_of(module)
    of_columns = isinstance(module, ColumnParallelLinear)
    return transformer_engine.Shape(
        module.input_size, module.output_size, of_columns, module.tp_group
    )


def _layer(module: Any, of_member: str, indices: dict[str, int]) -> LinearLayer:
    name, shape = of_member.rpartition(".")[0], _shape_of(module)
    widths = (shape.inputs, shape.outputs) if shape.of_columns else (shape.outputs, shape.inputs)
    whole = Side(width=widths[0])
    if module.sequence_parallel and ranks_of(shape.group) > 1:
        whole = replace(whole, gather=partial(gather_tokens, group=shape.group))
    gated = module.config.gated_linear_unit and name.endswith("linear_fc1")
    here = Side(width=widths[1], here=_slices(shape.group, widths[1], gated))
    inputs, outputs = (whole, here) if shape.of_columns else (here, whole)
    return LinearLayer(
        module=module,
        name=name,
        inputs=replace(inputs, prepare=shape.prepare) if shape.prepare else inputs,
        outputs=outputs,
        weight=indices.get("weight"),
        bias=indices.get("bias"),
        counts_bias=shape.of_columns or is_first_of(shape.group),
    )


def _slices(group: Any, width: int, gated: bool) -> list[slice]:
    """A rank of a gated MLP has a part of the gate and the same part of the other half."""
    ranks, rank = ranks_of(group), rank_in(group)
    halves = 2 if gated else 1
    size, each = width // halves, width // halves // ranks
    return [slice(k * size + rank * each, k * size + (rank + 1) * each) for k in range(halves)]
