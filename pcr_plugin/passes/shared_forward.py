"""One forward pass for both objectives: two backward passes through the graph that it leaves.

Every micro-batch runs forward once, then backward for the KL, with the graph kept, then backward
for the surrogate. In the scope each objective's gradients accumulate in tensors of their own,
which take turns in the host; outside of it everything accumulates in one place.

| | first backward pass | second | in the scope | outside |
|---|---|---|---|---|
| apart | s | p | s; p | beta s + p |
| combined | s, of the scope's parameters alone | C = p + beta s | s; C | C |

With `combined` no gradient of a parameter outside the scope is computed twice. p = C - beta s is
never formed: inner products change their basis, and g = w_p C + (w_s - w_p beta) s.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor

from pcr_plugin.estimators import Estimator, Objective, RunPass, SplitHalfEstimator
from pcr_plugin.gradients import Part, SharedGradients
from pcr_plugin.passes.pair import GradientPair

_DIFFERENT = (
    "pcr.passes=shared_forward reduces gradients after every micro-batch, and the ranks' "
    "micro-batches did not reach the same parameters: their gradients would be mixed up. Use "
    "pcr.passes=two_forward."
)


class SharedForward:
    """Runs a step for a host that lets two backward passes run in every micro-batch.

    Args:
        gradients: the host's gradients.
        estimator: measures the variances.
        run: runs the whole mini-batch, or a half; calls `micro_batch` and `stability_sweep`.
        combined: whether the second backward pass is that of p + beta s.
        all_equal: whether a number is the same on all ranks of the model, which all call it.
        rounding: relative error of a gradient, in the type that the model computes in.
    """

    def __init__(
        self,
        gradients: SharedGradients,
        estimator: Estimator,
        run: RunPass,
        *,
        combined: bool,
        all_equal: Callable[[int], bool],
        rounding: float = 0.0,
    ) -> None:
        assert not combined or estimator.is_linear, "its units need p itself"
        self._gradients = gradients
        self._estimator = estimator
        self._run = run
        self._combined = combined
        self._all_equal = all_equal
        self._rounding = rounding
        self._beta = 0.0
        # The gradients in the scope of the objective whose turn it is not.
        self._aside: list[Tensor | None] = []
        self._sweeps = ExitStack()

    @property
    def beta(self) -> float:
        """The coefficient of s in this step."""
        return self._beta

    @property
    def combined(self) -> bool:
        """Whether the second backward pass is that of p + beta s."""
        return self._combined

    def __call__(self, beta: float) -> GradientPair:
        """Compute both gradients; the host is left with p, or with p + beta s."""
        self._beta, mix = beta, beta if self._combined else 0.0
        self._estimator.begin(mix)
        self._gradients.begin()
        self._gradients.count_arrivals()
        if self._combined:
            self._gradients.look_for_leaves()
        self._aside = self._gradients.nothing()
        with self._estimator.measuring(*Objective):
            if isinstance(self._estimator, SplitHalfEstimator):
                self._run_halves(self._estimator)
            else:
                self._run(None)
            s = self._gradients.shards(self._aside)
            self._estimator.end_pass(Objective.STABILITY, lambda: s)
            self._estimator.end_pass(Objective.PLASTICITY, self._gradients.read)
        self._aside = []
        problem = self._gradients.unreached() if self._combined else ""
        if not self._all_equal(self._gradients.arrivals()):
            problem = _DIFFERENT
        return GradientPair(s, mix, self._rounding, problem=problem)

    def _run_halves(self, estimator: SplitHalfEstimator) -> None:
        """The halves one after the other; of both objectives the first is kept and added."""
        self._run(0)
        first = {Objective.PLASTICITY: self._gradients.take()}
        first[Objective.STABILITY] = self._gradients.shards(self._aside)
        self._aside = self._gradients.nothing()
        self._gradients.keep_rest(1.0)
        self._run(1)
        self._gradients.finish_rest()
        for objective in Objective:
            self._gradients.add(first[objective], [1.0] * len(self._aside))
            estimator.keep_first(objective, first[objective])
            self._aside = self._gradients.swap(self._aside)

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Around everything that the host does with one micro-batch."""
        with self._sweeps:
            yield
        self._gradients.end_micro_batch()

    @contextmanager
    def stability_sweep(self) -> Iterator[Sequence[Tensor] | None]:
        """Around the backward pass of the KL (without beta), after the micro-batch's forward pass.

        What the host runs backward after it, in the same micro-batch, is the other objective's.

        Yields:
            The tensors whose gradients are needed; `None` for all.
        """
        with self.stability_part() as leaves:
            yield leaves
        self._sweeps.enter_context(self._estimator.watching(Objective.PLASTICITY))

    @contextmanager
    def stability_part(self, part: Part | None = None) -> Iterator[Sequence[Tensor] | None]:
        """Around a part of that backward pass, also inside of the other objective's.

        Args:
            part: the parameters whose gradients come in it; by default all.

        Yields:
            As `stability_sweep` does.
        """
        self._aside = self._gradients.swap(self._aside, part)
        try:
            with ExitStack() as around:
                around.enter_context(self._estimator.watching(Objective.STABILITY))
                if not self._combined:
                    around.enter_context(self._gradients.rest_times(self._beta, part))
                yield self._gradients.leaves(part) if self._combined else None
        finally:
            self._aside = self._gradients.swap(self._aside, part)
