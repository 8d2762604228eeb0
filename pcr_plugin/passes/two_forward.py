"""The reference: every objective has forward and backward passes of its own."""

from collections.abc import Callable
from typing import Any

from pcr_plugin.estimators import Estimator, Objective, RunPass
from pcr_plugin.gradients import Gradients, RandomState
from pcr_plugin.passes.pair import GradientPair


class TwoForward:
    """Works with every host that can run its own pass twice.

    Args:
        gradients: the host's gradients.
        estimator: measures the variances.
        device_module: `torch.cuda` or what stands for it, for the random state.
        stability: runs the KL loss (without beta) forward and backward.
        plasticity: runs the surrogate loss forward and backward.
        auxiliary: runs the losses that the model adds by itself, alone; their gradient is added to
            what the rule makes of the two others.
    """

    def __init__(
        self,
        gradients: Gradients,
        estimator: Estimator,
        device_module: Any,
        stability: RunPass,
        plasticity: RunPass,
        auxiliary: Callable[[], None] | None = None,
    ) -> None:
        self._gradients = gradients
        self._estimator = estimator
        self._device_module = device_module
        self._stability = stability
        self._plasticity = plasticity
        self._auxiliary = auxiliary

    def __call__(self, beta: float) -> GradientPair:
        """Compute both gradients; the host is left with p."""
        # The plasticity pass comes last so that the random stream ends as after a host's step.
        random_state = RandomState.capture(self._device_module)
        self._estimator.begin()
        self._gradients.begin()
        self._estimator.collect(Objective.STABILITY, self._stability)
        s = self._gradients.take()
        self._gradients.keep_rest(beta)
        random_state.restore()
        added = None
        if self._auxiliary is not None:
            self._auxiliary()
            added = self._gradients.take()
            self._gradients.keep_rest(1.0)
            random_state.restore()
        self._estimator.collect(Objective.PLASTICITY, self._plasticity)
        self._gradients.finish_rest()
        return GradientPair(s, added=added)
