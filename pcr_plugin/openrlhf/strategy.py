"""OpenRLHF's DeepSpeed strategy as the trainer of the actor sees it: our backward and step."""

from typing import Any

from openrlhf.utils.deepspeed import DeepspeedStrategy
from torch import Tensor

from pcr_plugin.openrlhf.step import Step


class TwoGradientStrategy(DeepspeedStrategy):
    """Everything but two methods is the stock strategy's, with its state."""

    @classmethod
    def adopt(cls, stock: DeepspeedStrategy, step: Step) -> "TwoGradientStrategy":
        """Take over the state of a strategy that is set up.

        Args:
            stock: the worker's strategy.
            step: does what the two methods ask for.
        """
        adopted = cls.__new__(cls)
        adopted.__dict__.update(stock.__dict__)
        adopted.two_gradients = step
        return adopted

    two_gradients: Step

    def backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """Both gradients of the micro-batch, or the one whose turn it is.

        Args:
            loss: without the gradient of the KL term.
        """
        self.two_gradients.backward(loss)

    def optimizer_step(self, *_: Any, **__: Any) -> None:
        """The update at the end of an accumulation window; before it DeepSpeed's counters alone."""
        self.two_gradients.end_micro_batch()
