"""Metrics over steps: a panel per metric, a curve per configuration."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from pcr_plugin.plots.figures.drawing import Drawing, Missing, pages
from pcr_plugin.plots.figures.style import (
    BANDS,
    CURVES,
    labelled,
    legend,
    look,
    panels,
    spread_markers,
)
from pcr_plugin.plots.runs.groups import Group
from pcr_plugin.plots.tables.curves import Curve, curve
from pcr_plugin.plots.tables.study import Study

_NEVER_NEGATIVE = ("norm_", "grad_norm", "alpha", "beta_eff", "conflict_rate")
_SHARES = ("alpha", "conflict_rate")
_WIDE = 100.0  # largest over smallest value from which an axis is logarithmic
_ODD_SHARE = 10  # one value in so many may be a rounded zero: KL gradients of the first step
BAND = (
    "Where a configuration has several seeds: the mean over those that reached the step, with "
    "the 95 % interval of that mean by Student's t, cut where the metric cannot be."
)


@dataclass(frozen=True)
class Panels:
    """A figure of curves.

    Attributes:
        name: of its files.
        title: of the figure.
        caption: before the sentence on bands.
        metrics: label of the vertical axis to veRL's metric.
        zero: whether to draw a line at 0.
        logarithmic: whether values that span orders of magnitude get a logarithmic axis.
    """

    name: str
    title: str
    caption: str
    metrics: Mapping[str, str]
    zero: bool = False
    logarithmic: bool = False

    def draw(self, study: Study) -> Iterator[Drawing | Missing]:
        """A figure for every five configurations, with the metrics that are there."""
        there = {
            label: metric
            for label, metric in self.metrics.items()
            if any(curve(group.logs, metric) for group in study.groups)
        }
        lacking = [metric for metric in self.metrics.values() if metric not in there.values()]
        if lacking:
            some = "panels of " + self.title if there else self.title
            yield Missing(some, "the metrics " + ", ".join(f"`{metric}`" for metric in lacking))
        rules = list(dict.fromkeys(group.rule() for group in study.groups))
        shown = [g for g in study.groups if any(curve(g.logs, m) for m in there.values())]
        for suffix, number, page in pages(shown, BANDS, Group.conditions):
            caption = f"{self.caption} {BAND}"
            figure = self._page(page, there, _looks(page, rules))
            yield Drawing(self.name + suffix, self.title + number, caption, figure)

    def _page(
        self, groups: Sequence[Group], metrics: Mapping[str, str], looks: Sequence[int]
    ) -> Any:
        columns = 1 if len(metrics) == 1 else 2
        figure, axes = panels(
            -(-len(metrics) // columns), columns, (6.5, 3.4) if columns == 1 else (4.4, 2.8)
        )
        handles: dict[int, Any] = {}
        for axis, (label, metric) in zip(axes, metrics.items(), strict=False):
            for index, group in enumerate(groups):
                found = curve(group.logs, metric)
                if found:
                    handles[index] = draw_curve(axis, found, looks[index], metric)
            axis.set_ylabel(labelled(label, metric))
            axis.set_xlabel("training step")
            if self.zero:
                axis.axhline(0, color="black", linewidth=0.6)
            if self.logarithmic:
                scale_if_wide(axis)
        for axis in axes[len(metrics) :]:
            axis.remove()
        shown = sorted(handles)
        legend(figure, [handles[index] for index in shown], [_named(groups[i]) for i in shown])
        return figure


def _looks(groups: Sequence[Group], rules: Sequence[Any]) -> Sequence[int]:
    """A rule looks the same on every page, unless a page has it twice."""
    looks = [rules.index(group.rule()) for group in groups]
    distinct = len(set(looks)) == len(looks) and max(looks) < CURVES
    return looks if distinct else range(len(groups))


def draw_curve(axis: Any, found: Curve, index: int, metric: str) -> Any:
    """A line, and its band if it has one; the handle for the legend."""
    marks = spread_markers(len(found.steps), index)
    if found.has_band:
        colour = look(index)["color"]
        least, most = _limits(metric)
        low = [max(least, edge) for edge in found.edge(-1)]
        high = [min(most, edge) for edge in found.edge(1)]
        axis.fill_between(found.steps, low, high, color=colour, alpha=0.14, linewidth=0)
    [line] = axis.plot(found.steps, found.means, **look(index), markevery=marks, markersize=4.5)
    return line


def scale_if_wide(axis: Any) -> None:
    """A logarithmic axis for positive values that span two orders of magnitude.

    The smallest tenth of the values is not asked, and is cut where it lies far below the rest.
    """
    values = sorted(float(y) for line in axis.get_lines() for y in line.get_ydata())
    if not values or values[0] <= 0:
        return
    least = values[len(values) // _ODD_SHARE]
    if values[-1] > _WIDE * least:
        axis.set_yscale("log")
        axis.set_ylim(bottom=max(least / _WIDE, axis.get_ylim()[0]))


def _limits(metric: str) -> tuple[float, float]:
    """What a metric can be."""
    name = metric.rpartition("/")[2]
    return (
        0.0 if name.startswith(_NEVER_NEGATIVE) else -inf,
        1.0 if name in _SHARES else inf,
    )


def _named(group: Group) -> str:
    count = len(group.runs)
    return group.name if count == 1 else f"{group.name} ({count} runs)"
