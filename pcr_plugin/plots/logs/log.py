"""The metrics of one run."""

from collections import defaultdict
from collections.abc import Mapping, Set
from math import isfinite


class Log:
    """The metrics of a run by step.

    Attributes:
        steps: step -> metric -> value; what was logged for one step in several parts is merged.
    """

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = defaultdict(dict)
        self._metrics: set[str] = set()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Merge metrics into a step; of a metric that is given twice the last value counts."""
        self.steps[step].update(values)
        self._metrics.update(key for key, value in values.items() if isfinite(value))

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """The steps that have a metric, and its values there."""
        pairs = sorted((step, data[metric]) for step, data in self.steps.items() if metric in data)
        return [step for step, _ in pairs], [value for _, value in pairs]

    def finite(self, metric: str) -> dict[int, float]:
        """Step to value, without NaN and infinity, in the order of the steps."""
        pairs = zip(*self.series(metric), strict=True)
        return {step: value for step, value in pairs if isfinite(value)}

    def metrics(self) -> Set[str]:
        """All metrics with a finite value at any step."""
        return self._metrics

    def not_finite(self) -> int:
        """The number of values that are NaN or infinite."""
        return sum(not isfinite(value) for data in self.steps.values() for value in data.values())
