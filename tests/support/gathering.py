"""Whole tensors of a sharded model, put together by torch's own means; every rank has to ask."""

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType
from torch.distributed.tensor import DTensor


def shard_sizes(module: nn.Module) -> dict[str, int]:
    """Number of elements on this rank of every (flat) parameter."""
    return {
        name: (p.to_local() if isinstance(p, DTensor) else p).numel()
        for name, p in module.named_parameters()
    }


def whole_weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights, by the names of the unwrapped model."""
    if isinstance(module, FullyShardedDataParallel):
        return _full_state(module)
    return {name: _whole(p) for name, p in module.named_parameters()}


def whole_gradients(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients of all trainable parameters, zeros where there is none.

    With flat parameters those of frozen ones are there too, as zeros.
    """
    if isinstance(module, FullyShardedDataParallel):
        return _flat_gradients(module)
    return {
        name: _whole(p.grad) if p.grad is not None else torch.zeros(p.shape)
        for name, p in module.named_parameters()
        if p.requires_grad
    }


def _whole(tensor: Tensor) -> Tensor:
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().clone().cpu()


def _full_state(module: FullyShardedDataParallel) -> dict[str, Tensor]:
    settings = FullStateDictConfig(rank0_only=False)
    with FullyShardedDataParallel.state_dict_type(module, StateDictType.FULL_STATE_DICT, settings):
        return {name: w.detach().clone() for name, w in module.state_dict().items()}


@torch.no_grad()
def _flat_gradients(module: FullyShardedDataParallel) -> dict[str, Tensor]:
    """The gradients take the weights' place for a moment, and torch names and gathers them."""
    handles = [
        unit._handle
        for unit in FullyShardedDataParallel.fsdp_modules(module)
        if unit._handle is not None
    ]
    weights = [handle.flat_param.detach().clone() for handle in handles]
    for handle in handles:
        flat = handle.flat_param
        flat.data.copy_(torch.zeros_like(flat) if flat.grad is None else flat.grad)
    gradients = _full_state(module)
    for handle, weight in zip(handles, weights, strict=True):
        handle.flat_param.data.copy_(weight)
    return gradients
