"""Gradient access for modules sharded by FSDP2, whose gradients are DTensors."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pcr_plugin.blocks import Block
from pcr_plugin.gradients import InScope, Local, Seen, reporting

_MARK = "_pcr_plugin_hooked"
# Gets the index of an in-scope parameter and the unsharded parameter.
_Found = Callable[[int, Tensor], None]


class Fsdp2Gradients(InScope):
    """Implements `pcr_plugin.gradients.Gradients` on `parameter.grad`.

    Args:
        module: the model after `fully_shard`; an unsharded one works too.
        blocks: the scope's blocks.
        counted: whether this is the replica of the model whose shards are counted.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[Block], counted: bool = True) -> None:
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        super().__init__(list(named), [block.parameters for block in blocks], counted)
        self._module = module
        self._scope: list[Any] = [named[name] for name in self._names]
        self._rest: list[Any] = [named[name] for name in self._names_of_rest]
        self._in_second_pass = False
        self._watching_storage = False
        self._storages_of_rest: set[int] = set()

    @property
    def device(self) -> torch.device:
        """Where the gradients are: with a CPU offload policy on the CPU.

        That is where autograd leaves them, beside their parameters. There need not be any: where
        no micro-batch has an advantage nothing runs backward for p.
        """
        shards = (local_shard(p.detach()) for p in (*self._scope, *self._rest))
        return next((s.device for s in shards if s is not None), torch.device("cpu"))

    def watch(self, seen: Seen) -> None:
        """Report the gradients of the unsharded parameters."""

        def hook(index: int, unsharded: Any) -> None:
            if not getattr(unsharded, _MARK, False):
                unsharded.register_hook(reporting(index, seen))
                setattr(unsharded, _MARK, True)

        self._find_unsharded(hook)

    def _find_unsharded(self, found: _Found) -> None:
        """Report the unsharded parameters whenever their modules run.

        The parameters of `model.parameters()` are shards that autograd never sees. The unsharded
        parameter stands in the module that owns it while that module runs, so a forward pre-hook
        on the owner finds it there.
        """
        owned: dict[str, list[tuple[str, int]]] = {}
        for index, name in enumerate(self._names):
            owner, _, attribute = name.rpartition(".")
            owned.setdefault(owner, []).append((attribute, index))
        for owner, members in owned.items():
            hook = _looking_for(members, found)
            self._module.get_submodule(owner).register_forward_pre_hook(hook)

    @torch.no_grad()
    def read(self) -> Local:
        """The local shards in the scope, as views."""
        return [local_shard(p.grad) for p in self._scope]

    def begin(self) -> None:
        """The next pass is a first one."""
        self._in_second_pass = False

    @torch.no_grad()
    def take(self) -> Local:
        """Move the in-scope gradients out, without a copy."""
        taken = self.read()
        for p in self._scope:
            p.grad = None
        if any(g is not None and _is_part(g) for g in taken):
            self._watch_storage()
        return taken

    def _watch_storage(self) -> None:
        if not self._watching_storage:
            self._watching_storage = True
            for p in self._scope:
                p.register_post_accumulate_grad_hook(self._give_own_storage)

    @torch.no_grad()
    def add(self, taken: Local, factors: Sequence[float]) -> None:
        """Add taken gradients, times one factor each, to those that are there."""
        for p, shard, factor in zip(self._scope, taken, factors, strict=True):
            if shard is None:
                continue
            if p.grad is None:
                p.grad = _like(p, shard * factor)
            else:
                local = local_shard(p.grad)
                assert local is not None
                local.add_(shard, alpha=factor)

    @torch.no_grad()
    def keep_rest(self, factor: float) -> None:
        """Multiply the gradients outside the scope, where the next pass accumulates."""
        self._rest_has_a_place()
        if factor == 1.0:
            return
        for p in self._rest:
            if p.grad is not None:
                p.grad.mul_(factor)

    def _rest_has_a_place(self) -> None:
        self._in_second_pass = True
        held = [local_shard(p.grad) for p in self._rest]
        self._storages_of_rest = {storage_of(shard) for shard in held if shard is not None}

    def finish_rest(self) -> None:
        """Nothing is set aside."""
        self._in_second_pass = False

    @torch.no_grad()
    def _give_own_storage(self, parameter: Tensor) -> None:
        """Let go of what the reduction of a whole layer would keep.

        FSDP2 reduces a layer into one buffer, of which all its gradients are views. In the second
        pass those outside the scope already have a place and are added to, so a view that stays
        would hold one more gradient of the whole layer. What shares its place with them may stay.
        """
        shard = local_shard(parameter.grad)
        if not self._in_second_pass or shard is None or not _is_part(shard):
            return
        if storage_of(shard) not in self._storages_of_rest:
            parameter.grad = _like(parameter, shard.clone())


def storage_of(shard: Tensor) -> int:
    """What tells whether two shards are views of one buffer."""
    return shard.untyped_storage().data_ptr()


def _is_part(shard: Tensor) -> bool:
    return shard.untyped_storage().nbytes() > shard.nbytes


def _looking_for(
    members: Sequence[tuple[str, int]], found: _Found
) -> Callable[[nn.Module, tuple[object, ...]], None]:
    def look(owner: nn.Module, inputs: tuple[object, ...]) -> None:
        for attribute, index in members:
            parameter = getattr(owner, attribute)
            if parameter.requires_grad:
                found(index, parameter)

    return look


def local_shard(gradient: Tensor | None) -> Tensor | None:
    """This rank's part of a gradient."""
    if isinstance(gradient, DTensor):
        local: Tensor = gradient.to_local()
        return local
    return gradient


def _like(parameter: Tensor, shard: Tensor) -> Tensor:
    """A gradient for `parameter` from its local shard."""
    if not isinstance(parameter, DTensor):
        return shard
    layout: dict[str, Any] = {"shape": parameter.shape, "stride": parameter.stride()}
    return DTensor.from_local(
        shard, parameter.device_mesh, parameter.placements, run_check=False, **layout
    )
