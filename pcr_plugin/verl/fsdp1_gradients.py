"""Gradient access for modules wrapped by FSDP1, which keeps parameters in flat ones.

A flat parameter holds a whole decoder layer, so a block is a set of slices of it. The same view
serves `use_orig_params=False` (veRL's default: autograd and the optimizer see the flat parameter)
and `True` (the gradients of the original parameters are views of the flat gradient).

| flat tensor      | shape                     | where a parameter is               |
|------------------|---------------------------|------------------------------------|
| what autograd has | (unsharded, padded) elements | `FlatSlice.whole`                |
| `flat_param.grad` after a pass | (elements of this rank) | `FlatSlice.shard`, maybe empty |
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import InScope, Local, Seen

_EMPTY = slice(0, 0)


@dataclass(frozen=True, kw_only=True)
class FlatSlice:
    """An original parameter as a part of a flat one.

    Args:
        name: the parameter's name in the wrapped model.
        flat: the flat parameter.
        whole: its elements in the unsharded flat tensor.
        shard: its elements in this rank's shard.
        trainable: whether it gets a gradient.
    """

    name: str
    flat: Any
    whole: slice
    shard: slice
    trainable: bool


def flat_slices(module: nn.Module) -> list[FlatSlice]:
    """Every original parameter of an FSDP1 model, in the model's order.

    Args:
        module: the wrapped model.

    Raises:
        AttributeError: a torch whose FSDP1 keeps its metadata elsewhere.
    """
    return [
        found
        for prefix, unit in module.named_modules()
        if isinstance(unit, FullyShardedDataParallel) and unit._handle is not None
        for found in _slices_of(prefix, unit._handle)
    ]


def _slices_of(prefix: str, handle: Any) -> Iterator[FlatSlice]:
    flat = handle.flat_param
    # Offsets have entries for the padding that aligns addresses, names have not.
    offsets = [
        offset
        for offset, padding in zip(
            handle._get_flat_param_offsets(), flat._is_padding_mask, strict=True
        )
        if not padding
    ]
    originals = flat._params or [flat] * len(flat._fqns)
    for name, original, (first, last), info in zip(
        flat._fqns, originals, offsets, flat._shard_param_infos, strict=True
    ):
        start = info.offset_in_shard
        yield FlatSlice(
            name=f"{prefix}.{name}" if prefix else name,
            flat=flat,
            whole=slice(first, last + 1),
            shard=slice(start, start + info.numel_in_shard) if info.in_shard else _EMPTY,
            trainable=original.requires_grad,
        )


class Fsdp1Gradients(InScope):
    """Implements `pcr_plugin.gradients.Gradients` on slices of flat gradients.

    Args:
        module: the wrapped model.
        blocks: the scope's blocks, of names that `flat_slices` gives.
        counted: whether this is the replica of the model whose shards are counted.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[Block], counted: bool = True) -> None:
        trainable = {found.name: found for found in flat_slices(module) if found.trainable}
        super().__init__(list(trainable), [block.parameters for block in blocks], counted)
        self._scope = [trainable[name] for name in self._names]
        self._rest = [trainable[name] for name in self._names_of_rest]

    @property
    def device(self) -> torch.device:
        """Where the gradients are."""
        device: torch.device = self._scope[0].flat.device
        return device

    def watch(self, seen: Seen) -> None:
        """Report slices of the flat gradients, which autograd computes as a whole."""
        members: dict[Any, list[tuple[int, slice]]] = {}
        for index, found in enumerate(self._scope):
            members.setdefault(found.flat, []).append((index, found.whole))
        for flat, slices in members.items():
            flat.register_hook(_report(slices, seen))

    @torch.no_grad()
    def read(self) -> Local:
        """The local shards in the scope, as views."""
        return [_gradient(found) for found in self._scope]

    def begin(self) -> None:
        """Nothing is ever set aside."""

    @torch.no_grad()
    def take(self) -> Local:
        """Copy the in-scope gradients out and leave zeros: their neighbours have to stay."""
        taken: Local = []
        for shard in self.read():
            taken.append(None if shard is None else shard.clone())
            if shard is not None:
                shard.zero_()
        return taken

    @torch.no_grad()
    def add(self, taken: Local, factors: Sequence[float]) -> None:
        """Add taken gradients, times one factor each, to those that are there."""
        for found, shard, factor in zip(self._scope, taken, factors, strict=True):
            if shard is None:
                continue
            present = _gradient(found)
            # `take` leaves the flat gradient in place, so what was taken has a place to go.
            assert present is not None, f"the flat gradient of {found.name} is gone"
            present.add_(shard, alpha=factor)

    @torch.no_grad()
    def keep_rest(self, factor: float) -> None:
        """Multiply the gradients outside the scope, where the next pass accumulates."""
        if factor == 1.0:
            return
        for found in self._rest:
            shard = _gradient(found)
            if shard is not None:
                shard.mul_(factor)

    def finish_rest(self) -> None:
        """Nothing is set aside."""


def _gradient(found: FlatSlice) -> Tensor | None:
    gradient = found.flat.grad
    return None if gradient is None else gradient[found.shard]


def _report(slices: Sequence[tuple[int, slice]], seen: Seen) -> Callable[[Tensor], None]:
    def report(gradient: Tensor) -> None:
        for index, whole in slices:
            seen(index, gradient[whole])

    return report
