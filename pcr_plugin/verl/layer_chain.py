"""Decoder layers that recompute their activations, and whether they form a chain.

Both signals can share a layer's recomputation where one tensor leads into it, which is the output
of the layer before, and one leads out of it. That is not assumed: the first micro-batch that is
trained on runs forward once more, before its step, while the calls of the layers are watched; and
every later forward pass is checked while it runs. So a resumed run decides as the first did.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils._pytree import tree_leaves

# What a layer may get besides tensors: nothing that a gradient could hide in.
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size)
_FUNCTION = "_gradient_checkpointing_func"
# See `LayerChain.calling`.
Called = Callable[..., Any]
# A tensor, where it comes from, and how often it was written over.
_State = tuple[Tensor, object, int]


class LayerChain:
    """The layers of one model.

    Args:
        module: the model after `fully_shard`.
        scope: names of the parameters in the scope.
    """

    def __init__(self, module: nn.Module, scope: Sequence[str]) -> None:
        found = [(name, m) for name, m in module.named_modules() if _recomputes(m)]
        self.names = [name for name, _ in found]
        self.modules = [m for _, m in found]
        # What FSDP2 gathers besides the layers.
        inside = {part for layer in self.modules for part in layer.modules()}
        self.others = [m for m in module.modules() if isinstance(m, FSDPModule) and m not in inside]
        self._scope = scope
        self._calls = 0
        # What the last call has returned, and what tells whether it is still that.
        self._last: _State | None = None

    def reason_against(self) -> str:
        """Why recomputations are not shared, as far as the layers themselves tell."""
        for name, module in zip(self.names, self.modules, strict=True):
            if not isinstance(module, FSDPModule):
                return f"{name} is not sharded by itself, and is reduced with other layers"
        prefixes = tuple(f"{name}." for name in self.names)
        outside = [name for name in self._scope if not name.startswith(prefixes)]
        return f"{outside[0]} is in the scope and outside of these layers" if outside else ""

    def watch(self, forward: Callable[[], object]) -> str:
        """Why the layers that a forward pass runs are no chain; empty if they are one.

        Args:
            forward: runs the model forward, with gradients.
        """
        found: list[str] = []
        with self.calling(self._watched, found.append):
            forward()
        return found[0] if found else ""

    @contextmanager
    def calling(self, called: Called, broken: Callable[[str], object]) -> Iterator[None]:
        """Around a forward pass: the layers run as told, and what breaks the chain is reported.

        Args:
            called: gets a layer's place, Transformers' own function for it, how to run the layer,
                and its positional arguments; returns its output.
            broken: gets the reason.
        """
        stock = [getattr(module, _FUNCTION) for module in self.modules]
        self._calls, self._last = 0, None
        try:
            for place, module in enumerate(self.modules):
                own = partial(self._call, place, partial(called, place, stock[place]), broken)
                setattr(module, _FUNCTION, own)
            yield
            if self._calls != len(self.modules):
                broken(f"{self._calls} calls of {len(self.modules)} layers")
        finally:
            self._last = None
            for module, function in zip(self.modules, stock, strict=True):
                setattr(module, _FUNCTION, function)

    def _call(
        self, place: int, called: Called, broken: Callable[[str], object], run: Any, *inputs: Any
    ) -> Any:
        if found := self._unlike_a_chain(place, run, inputs):
            broken(f"{self.names[place]} {found}")
        output = called(run, *inputs)
        if not isinstance(output, Tensor):
            broken(f"{self.names[place]} returns a {type(output).__name__}, not one tensor")
        self._calls, self._last = self._calls + 1, _state(output)
        return output

    def _unlike_a_chain(self, place: int, run: Any, inputs: Sequence[Any]) -> str:
        if place != self._calls:
            return "does not run once, in the order of the layers"
        if not inputs or not isinstance(inputs[0], Tensor) or not inputs[0].requires_grad:
            return "has no input with a gradient"
        if place and not _same(_state(inputs[0]), self._last):
            return "does not get the output of the layer before"
        if not isinstance(run, partial):
            return "is not called as Transformers does"
        for other in tree_leaves((inputs[1:], run.args, run.keywords)):
            if isinstance(other, Tensor) and other.requires_grad:
                return "gets a second tensor with a gradient"
            if not isinstance(other, (Tensor, *_PLAIN)):
                return f"gets a {type(other).__name__}, which could hide one"
        return ""

    def _watched(self, place: int, stock: Called, run: Any, *inputs: Any) -> Any:
        return stock(run, *inputs)


def _state(tensor: Any) -> _State | None:
    return (tensor, tensor.grad_fn, tensor._version) if isinstance(tensor, Tensor) else None


def _same(first: _State | None, second: _State | None) -> bool:
    if first is None or second is None:
        return False
    return first[0] is second[0] and first[1] is second[1] and first[2] == second[2]


def _recomputes(module: nn.Module) -> bool:
    try:
        from transformers.modeling_layers import GradientCheckpointingLayer
    except ImportError:  # an older one, whose models recompute layers by other means
        return False
    return isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
