"""The passes of one objective over a mini-batch, or over its halves."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pcr_plugin.verl import host
from pcr_plugin.verl.losses import LossFunction
from pcr_plugin.verl.outputs import Output, concatenate


class Passes:
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
