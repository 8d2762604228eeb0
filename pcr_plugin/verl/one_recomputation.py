"""One recomputation of a decoder layer for both backward passes.

The KL's backward pass covers what comes after the layers, and leaves its signal at the last one's
output. The other objective's then goes down the layers. Where it comes to one, the layer is
recomputed once; the KL's signal runs backward through it first, with the graph kept, and what
comes out of it waits for the layer below. One layer's activations are there at a time, and one
signal. What is before the first layer gets beta s together with the other signal: nothing of it
is in the scope, so it wants just their sum.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import CheckpointFunction

from pcr_plugin.gradients import Part
from pcr_plugin.passes import SharedForward
from pcr_plugin.verl.gathering import stay_gathered
from pcr_plugin.verl.layer_chain import LayerChain


class OneRecomputation:
    """Of every layer, in one micro-batch.

    Args:
        chain: the layers.
        parts: the parameters of each.
        passes: of the step.
    """

    def __init__(self, chain: LayerChain, parts: Sequence[Part], passes: SharedForward) -> None:
        self._chain, self._parts, self._passes = chain, parts, passes
        self._first_input: Tensor | None = None
        # While the KL's backward pass covers what comes after the layers.
        self._collecting = self._shares = False
        # Of the KL, at the output of the layer that comes next in the other backward pass.
        self._signal: Tensor | None = None

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around the forward pass of the micro-batch."""
        with self._chain.calling(self._call, _stop):
            yield

    @contextmanager
    def after_the_layers(self, leaves: Sequence[Tensor] | None) -> Iterator[list[Tensor] | None]:
        """Around the KL's backward pass, which ends at the output of the last layer.

        Without it there is no other, and the KL's goes through the layers like any.

        Args:
            leaves: whose gradients are needed in the scope; `None` for those of everything.

        Yields:
            What the gradients are needed of.
        """
        first = self._first_input
        assert first is not None, "there has been a forward pass"
        self._collecting = self._shares = True
        root, *_ = others = self._chain.others
        for module in others:
            # No layer is needed yet.
            _prefetch(module, root)
        head = [module for module in others if not isinstance(module, nn.Embedding)]
        try:
            # The scope is in the layers, so of no parameter after them. What is asked for leads
            # through all of them, so that a way around one is seen.
            with stay_gathered(*head):
                yield None if leaves is None else [first]
        finally:
            self._collecting = False
            _prefetch(root, self._chain.modules[-1])
            if leaves is not None:
                first.grad = None
        if self._signal is None:
            _stop("the KL has no gradient at the output of the last layer")

    def _call(self, place: int, stock: Callable[..., Any], run: Any, *inputs: Any) -> Any:
        if not place:
            self._first_input = inputs[0]
        elif inputs[0]._backward_hooks:
            _stop(f"a hook changes the gradient of the input of {self._chain.names[place]}")
        return _Layer.apply(_Run(self, place, run), True, *inputs)  # type: ignore[no-untyped-call]

    def collects(self, place: int, signal: Tensor | None) -> bool:
        """Whether this is the KL's backward pass, which recomputes nothing.

        Args:
            place: of the layer.
            signal: at its output.
        """
        if self._collecting and signal is not None:
            if place + 1 < len(self._parts):
                _stop(f"the output of {self._chain.names[place]} is used after the last layer")
            self._signal = signal
        return self._collecting

    def sweep(self, place: int, hidden: Tensor, output: Tensor) -> None:
        """Run the KL's signal backward through a layer that has been recomputed for the other.

        Args:
            place: of the layer.
            hidden: its input, a leaf whose gradient is empty.
            output: its output.
        """
        if not self._shares:
            return
        signal, self._signal = self._signal, None
        if signal is None:
            _stop(f"the KL has no gradient at the output of {self._chain.names[place]}")
        module = self._chain.modules[place]
        if place:
            _prefetch(module, self._chain.modules[place - 1])
        with ExitStack() as around:
            # A backward pass runs in the types that its forward pass has chosen.
            around.enter_context(torch.autocast(hidden.device.type, enabled=False))
            around.enter_context(stay_gathered(module))
            leaves = around.enter_context(self._passes.stability_part(self._parts[place]))
            inputs = None if leaves is None else [hidden, *leaves]
            torch.autograd.backward(output, signal, retain_graph=True, inputs=inputs)
        if place:
            self._signal, hidden.grad = hidden.grad, None
        elif self._passes.combined:
            hidden.grad = None
        else:
            assert hidden.grad is not None
            # What the other signal adds to.
            hidden.grad.mul_(self._passes.beta)


@dataclass(frozen=True)
class _Run:
    """Runs a layer; when it is recomputed, also the KL's signal backward through it."""

    step: OneRecomputation
    place: int
    run: Callable[..., Tensor]

    def __call__(self, hidden: Tensor, *further: Any) -> Tensor:
        output = self.run(hidden, *further)
        # The first time there is no graph.
        if torch.is_grad_enabled():
            self.step.sweep(self.place, hidden, output)
        return output


class _Layer(CheckpointFunction):
    """torch's own, which keeps the random state and that of autocast."""

    @staticmethod
    def forward(ctx: Any, run: _Run, keeps_random_state: bool, *inputs: Any) -> Any:
        ctx.set_materialize_grads(False)
        return CheckpointFunction.forward(ctx, run, keeps_random_state, *inputs)  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Any, *signals: Tensor | None) -> Any:
        run: _Run = ctx.run_function
        if run.step.collects(run.place, signals[0]):
            return (None, None, *(None for _ in ctx.inputs))
        return CheckpointFunction.backward(ctx, *signals)  # type: ignore[no-untyped-call]


def _prefetch(module: FSDPModule, following: FSDPModule) -> None:
    """FSDP2 gathers `following` while `module` runs backward, as it does by itself.

    The order that it has seen is forgotten after the first backward pass; this one stays.
    """
    module.set_modules_to_backward_prefetch([following])


def _stop(reason: str) -> NoReturn:
    raise RuntimeError(
        f"pcr.share_recomputation: {reason}; gradients would be wrong. Set it to false, and each "
        "backward pass recomputes by itself."
    )
