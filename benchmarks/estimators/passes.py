"""The two passes of veRL's engine, one objective at a time, with whatever looks on."""

from collections.abc import Callable
from functools import partial
from typing import Any

from verl.workers.utils.losses import ppo_loss

from benchmarks.estimators.settings import Settings
from benchmarks.estimators.training import Kept, new_actor
from pcr_plugin.estimators import Objective
from pcr_plugin.verl import enable
from pcr_plugin.verl.engine import TwoGradientEngine
from pcr_plugin.verl.losses import SplitLoss
from tests.support.verl_engine import build_engine

OnMicroBatch = Callable[[Any], None]


class Passes:
    """One engine with the weights of a kept batch.

    Args:
        settings: see there.
        kept: the batch and its policy.
        estimator: keys below `pcr.variance`, for `step`.
    """

    def __init__(self, settings: Settings, kept: Kept, **estimator: Any) -> None:
        self.actor = new_actor(settings)
        enable(self.actor, "pcr", variance=estimator)
        # With a learning rate of 0 an update is whole, and the weights stay.
        self.engine = build_engine(
            self.actor, kept.model, learning_rate=0.0, use_remove_padding=False
        )

    @property
    def _loss(self) -> Any:
        return partial(ppo_loss, config=self.actor)

    def run(self, objective: Objective, data: Any, on_micro_batch: OnMicroBatch) -> None:
        """Leave one objective's gradient on the parameters, by the stock engine's passes.

        To be called in the engine's `train_mode`, which clears the gradients at its end.

        Args:
            objective: which of the two losses.
            data: for the engine.
            on_micro_batch: called before every backward pass.
        """
        split = SplitLoss(self._loss, on_micro_batch)
        loss = split.stability() if objective is Objective.STABILITY else split.plasticity()
        self.engine.optimizer_zero_grad()
        super(TwoGradientEngine, self.engine).forward_backward_batch(data, loss)

    def step(self, data: Any) -> dict[str, float]:
        """A whole update with the estimator.

        Args:
            data: for the engine.

        Returns:
            The metrics `pcr/*`.
        """
        with self.engine.train_mode():
            metrics = self.engine.train_batch(data, self._loss)["metrics"]
        return {
            name: float(value.aggregate())
            for name, value in metrics.items()
            if name.startswith("pcr/")
        }
