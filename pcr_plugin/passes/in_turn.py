"""Both objectives in every micro-batch, for a host whose own loop goes over the micro-batches.

Such a host hands over one micro-batch at a time and asks for a step after the last one. Each
backward pass is reduced by itself; what it leaves is taken out of the host and added up here.

| after             | of the scope                | outside                      |
|-------------------|-----------------------------|------------------------------|
| a backward for s  | added to s, here            | beta s set aside by the host |
| a backward for p  | added to p, here            | p set aside by the host      |
| the last of them  | p in the host, s given back | p + beta s in the host       |
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from pcr_plugin.estimators import Estimator, Objective, SplitHalfEstimator
from pcr_plugin.gradients import Gradients, Local
from pcr_plugin.passes.pair import GradientPair


class InTurn:
    """Collects a step's two gradients from backward passes that the host runs.

    Args:
        gradients: the host's gradients, of which there are none before a backward pass; what
            `keep_rest` keeps is set aside until `finish_rest`, and never multiplied again.
        estimator: measures the variances; halves are every other micro-batch.
    """

    def __init__(self, gradients: Gradients, estimator: Estimator) -> None:
        self._gradients = gradients
        self._estimator = estimator
        self._halved = isinstance(estimator, SplitHalfEstimator)
        self._around = ExitStack()
        self._micro_batches = 0
        self._sums: dict[tuple[Objective, int], Local] = {}

    def start_micro_batch(self) -> int:
        """Before the forward pass of a micro-batch.

        Returns:
            The half it is in, 0 where there are none.
        """
        if self._micro_batches == 0:
            self._estimator.begin()
            self._gradients.begin()
            self._around.enter_context(self._estimator.measuring(*Objective))
        self._micro_batches += 1
        return self._half

    @property
    def _half(self) -> int:
        return (self._micro_batches - 1) % 2 if self._halved else 0

    @contextmanager
    def backward(self, objective: Objective, of_rest: float) -> Iterator[None]:
        """Around an objective's backward pass in the current micro-batch.

        Args:
            objective: whose gradient it is; the order is free.
            of_rest: factor outside the scope: beta for s, 1 for p.
        """
        with self._estimator.watching(objective):
            yield
        part = self._gradients.take()
        self._gradients.keep_rest(of_rest)
        held = self._sums.get((objective, self._half))
        self._sums[objective, self._half] = part if held is None else _added(held, part)

    def __call__(self, beta: float) -> GradientPair:
        """Hand the step's gradients over; the host is left with p.

        Args:
            beta: the backward passes have had it already.
        """
        p = self._whole(Objective.PLASTICITY)
        s = self._whole(Objective.STABILITY)
        self._gradients.finish_rest()
        self._gradients.add(p, [1.0] * len(p))
        self._estimator.end_pass(Objective.STABILITY, lambda: s)
        self._estimator.end_pass(Objective.PLASTICITY, self._gradients.read)
        self._around.close()
        self._micro_batches, self._sums = 0, {}
        return GradientPair(s)

    def _whole(self, objective: Objective) -> Local:
        first = self._sums[objective, 0]
        if not isinstance(self._estimator, SplitHalfEstimator):
            return first
        self._estimator.keep_first(objective, first)
        second = self._sums.get((objective, 1))
        return first if second is None else _added(second, first)


@torch.no_grad()
def _added(held: Local, part: Local) -> Local:
    """The sum, in the place of the first."""
    for index, shard in enumerate(part):
        if shard is None:
            continue
        present = held[index]
        held[index] = shard if present is None else present.add_(shard)
    return held
