"""The passes of one objective over a mini-batch, or over its halves, and those of a step."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

from pcr_plugin import passes
from pcr_plugin.estimators import Estimator
from pcr_plugin.gradients import Gradients
from pcr_plugin.verl import host
from pcr_plugin.verl.extras import Extras
from pcr_plugin.verl.losses import LossFunction, SplitLoss
from pcr_plugin.verl.outputs import Output, concatenate, merge


class Step(NamedTuple):
    """How a step comes to its gradients, and what it then returns.

    Attributes:
        passes: what the update runs.
        output: the stock step's output, after it has run.
    """

    passes: passes.Passes
    output: Callable[[], Output]


class ObjectiveRun:
    """Runs the stock engine with one loss and collects what it returns.

    Args:
        forward_backward: the stock `forward_backward_batch`.
        parts: the mini-batch, or its two halves.
        loss: the loss of this objective.
        around: what the pass over each part runs in.
    """

    def __init__(
        self,
        forward_backward: Callable[..., Output],
        parts: Sequence[Any],
        loss: LossFunction,
        around: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        self._forward_backward = forward_backward
        self._parts = parts
        self._loss = loss
        self._around = around
        self._outputs: list[Output] = []

    def run(self, part: int | None) -> None:
        """Forward and backward over a half, or over all of the mini-batch.

        Args:
            part: the half; `None` when there are none.
        """
        assert part is not None or len(self._parts) == 1
        with self._around(part or 0):
            self._outputs.append(self._forward_backward(self._parts[part or 0], self._loss))

    def output(self) -> Output:
        """The output of all passes as that of one."""
        return concatenate(self._outputs)


def without_entropy(data: Any) -> Any:
    """A shallow copy of a batch for the KL pass, which has no use for the entropy.

    Args:
        data: TensorDict as `forward_backward_batch` gets it.
    """
    batch = data.copy()
    host.name("verl.utils.tensordict_utils", "assign_non_tensor")(batch, calculate_entropy=False)
    return batch


def two_forward(
    stock: Callable[..., Output],
    data: Any,
    parts: Sequence[Any],
    split: SplitLoss,
    extras: Extras,
    gradients: Gradients,
    estimator: Estimator,
    generators: Any,
    *,
    observes: bool,
) -> Step:
    """A step whose objectives have passes of their own.

    Args:
        stock: the stock `forward_backward_batch`.
        data: this rank's mini-batch.
        parts: the same, or its two halves.
        split: the two losses.
        extras: what the model does at every pass.
        gradients: access to the gradients.
        estimator: measures the variances.
        generators: see `TwoGradientEngine.generators`.
        observes: whether the passes only measure.
    """
    stability = ObjectiveRun(
        stock,
        [without_entropy(part) for part in parts],
        split.stability(),
        lambda _: extras.stability_pass(),
    )
    plasticity = ObjectiveRun(
        stock,
        parts,
        split.plasticity(),
        lambda part: extras.plasticity_pass(last=part + 1 == len(parts)),
    )
    # Of the losses that the model adds by itself, over the whole mini-batch.
    auxiliary = ObjectiveRun(
        stock, [without_entropy(data)], split.nothing(), lambda _: extras.auxiliary_pass()
    )
    own = partial(auxiliary.run, None) if extras.has_losses and not observes else None
    return Step(
        passes.TwoForward(gradients, estimator, generators, stability.run, plasticity.run, own),
        lambda: merge(plasticity.output(), stability.output(), split.beta, auxiliary.output()),
    )
