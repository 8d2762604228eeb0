"""A metric over steps, and its value at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from pcr_plugin.plots.logs.log import Log
from pcr_plugin.plots.tables.statistics import Estimate, estimate

_LAST = 0.1  # the share of a run that its final value is the mean of


@dataclass(frozen=True)
class Curve:
    """A metric over steps.

    Attributes:
        steps: in order.
        points: the mean over seeds at each step.
    """

    steps: list[int]
    points: list[Estimate]

    @property
    def has_band(self) -> bool:
        """Whether any step has more than one seed."""
        return any(point.half_width is not None for point in self.points)

    @property
    def means(self) -> list[float]:
        """Of every step."""
        return [point.mean for point in self.points]

    def edge(self, sign: int) -> list[float]:
        """The band's upper (1) or lower (-1) edge; the mean itself where there is one seed."""
        return [point.mean + sign * (point.half_width or 0.0) for point in self.points]


def curve(logs: Sequence[Log], metric: str) -> Curve | None:
    """Mean over seeds at every step; a seed without a finite value there is left out of it.

    Returns:
        `None` if no log has the metric.
    """
    by_step: dict[int, list[float]] = {}
    for log in logs:
        for step, value in log.finite(metric).items():
            by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    points = [point for step in steps if (point := estimate(by_step[step])) is not None]
    return Curve(steps, points) if steps else None


def final(log: Log, metric: str) -> float | None:
    """The mean of the last tenth of the values, at least of the last one."""
    values = list(log.finite(metric).values())
    return fmean(values[-max(1, int(len(values) * _LAST)) :]) if values else None


def change(log: Log, metric: str) -> float | None:
    """`final` minus the first value; `None` with a single value."""
    values = list(log.finite(metric).values())
    last = final(log, metric)
    return last - values[0] if last is not None and len(values) > 1 else None


def typical(log: Log, metric: str) -> float | None:
    """The median, which a slow first step or one with a checkpoint does not move."""
    values = list(log.finite(metric).values())
    return median(values) if values else None


def over_seeds(values: Sequence[float | None]) -> Estimate | None:
    """Mean over the seeds that have a value."""
    return estimate(value for value in values if value is not None)
