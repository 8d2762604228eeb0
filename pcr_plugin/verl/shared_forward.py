"""veRL's own loop over micro-batches with two backward passes in each.

The loop stays the stock one. Its `forward_step` gets a loss function that computes both losses of
the one model output; after it the KL's backward pass runs, and the loop then runs that of the loss
which it got. One forward pass draws the random numbers of a stock step.

A surrogate whose gradient with respect to the model's output is zero has none with respect to any
parameter, whatever the loss: where that is so on all ranks, the loop gets a loss without a graph.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor

from pcr_plugin.estimators import Estimator
from pcr_plugin.gradients import SharedGradients
from pcr_plugin.passes import SharedForward
from pcr_plugin.verl.kept_graph import nothing_in_place
from pcr_plugin.verl.losses import SplitLoss
from pcr_plugin.verl.one_recomputation import OneRecomputation
from pcr_plugin.verl.outputs import Output
from pcr_plugin.verl.passes import ObjectiveRun

# Micro-batch, loss function, forward only; loss and output.
_ForwardStep = Callable[..., tuple[Tensor, dict[str, Any]]]
# Several times the relative error of a gradient against one in float64 that the tests have seen.
_ROUNDING = {torch.float64: 1e-13, torch.float32: 3e-5, torch.float16: 3e-2, torch.bfloat16: 1e-1}


class SharedLoop:
    """One step.

    Args:
        forward_backward: the stock `forward_backward_batch`.
        parts: the mini-batch, or its two halves.
        split: the two losses.
        gradients: access to the gradients.
        estimator: measures the variances.
        combined: see `SharedForward`.
        scale: what the host does to a loss before its backward pass (fp16).
        around: entered while the stock loop runs; in it the engine asks this object.
        before_another: entered around a backward pass that another one through the same graph
            follows.
        all_equal: see `SharedForward`.
        on_any: whether something is so on some rank of the model, which all call it; `None` to
            run every micro-batch backward.
        precision: that the model computes in.
    """

    def __init__(
        self,
        forward_backward: Callable[..., Output],
        parts: Sequence[Any],
        split: SplitLoss,
        gradients: SharedGradients,
        estimator: Estimator,
        *,
        combined: bool,
        scale: Callable[[Tensor], Tensor],
        around: Callable[["SharedLoop"], AbstractContextManager[None]],
        before_another: Callable[[], AbstractContextManager[None]],
        all_equal: Callable[[int], bool],
        on_any: Callable[[bool], bool] | None,
        precision: torch.dtype,
    ) -> None:
        self._beta, self._combined = split.beta, combined
        self._scale = scale
        self._stability: Tensor | None = None
        # p + beta s has the gradient of s at least.
        self._on_any = None if combined else on_any
        self._has_gradient = True
        look = None if self._on_any is None else self._look
        loss = split.both(split.beta if combined else 0.0, self._keep, look)
        self._whole = ObjectiveRun(forward_backward, parts, loss, lambda _: nullcontext())
        self._around, self._before_another = around, before_another
        self.passes = SharedForward(
            gradients,
            estimator,
            self._run,
            combined=combined,
            all_equal=all_equal,
            rounding=_ROUNDING[precision],
        )

    def _run(self, part: int | None) -> None:
        with self._around(self):
            self._whole.run(part)

    def _keep(self, stability: Tensor) -> None:
        self._stability = stability

    def _look(self, plasticity: Tensor, outputs: list[Tensor]) -> None:
        found = torch.autograd.grad(plasticity, outputs, retain_graph=True, allow_unused=True)
        # A NaN is more than zero.
        self._has_gradient = any(bool(_values(g).any()) for g in found if g is not None)

    def forward_step(
        self,
        stock: _ForwardStep,
        micro_batch: Any,
        loss_function: Any,
        recomputation: OneRecomputation | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The stock step, and the backward pass of the KL.

        Args:
            stock: the stock `forward_step`.
            micro_batch: the micro-batch.
            loss_function: of both losses.
            recomputation: where both backward passes share that of a layer.

        Returns:
            The loss that the stock loop runs backward next, and the stock output.
        """
        with nothing_in_place(), recomputation.forward() if recomputation else nullcontext():
            loss, output = stock(micro_batch, loss_function=loss_function, forward_only=False)
        stability, self._stability = self._stability, None
        assert stability is not None, "the loss function has been called"
        if not self._combined:
            output["loss"] += self._beta * stability.item()
        # Every rank reduces every layer, or none does.
        goes_on = self._on_any is None or self._on_any(self._has_gradient)
        with ExitStack() as around:
            leaves = around.enter_context(self.passes.stability_sweep())
            if goes_on:
                around.enter_context(self._before_another())
            if recomputation is not None and goes_on:
                leaves = around.enter_context(recomputation.after_the_layers(leaves))
            if leaves is None or leaves:
                torch.autograd.backward(self._scale(stability), retain_graph=goes_on, inputs=leaves)
        return loss if goes_on else loss.detach().requires_grad_(), output

    def output(self) -> Output:
        """The stock step's output."""
        return self._whole.output()


def _values(tensor: Tensor) -> Tensor:
    """All elements; veRL packs rows of different lengths."""
    return tensor.values() if tensor.is_nested else tensor
