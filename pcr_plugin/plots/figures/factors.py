"""The final score against one setting: beta, learning rate, alpha or scope."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pcr_plugin.plots.figures.drawing import Drawing, Missing, pages
from pcr_plugin.plots.figures.style import CURVES, legend, look, panels, text
from pcr_plugin.plots.logs.log import Log
from pcr_plugin.plots.runs.groups import Group
from pcr_plugin.plots.tables.statistics import estimate
from pcr_plugin.plots.tables.study import Study

Measure = Callable[[Log], float | None]
Line = dict[Any, Group]
FINAL = (
    "Large points: mean over seeds of the runs' final values (a final value is the mean of the "
    "last tenth of what was logged), with the 95 % interval of that mean by Student's t. Small "
    "points: the seeds. What was run at the same value stands side by side. Configurations that "
    "were run at one value only are left out."
)
_MOST_LETTERS = 60  # of all places together, side by side
_ROOM = 0.5  # of the way to the next place, for the lines that share one
_SLANTED = {"rotation": 15, "horizontalalignment": "right"}


@dataclass(frozen=True)
class Factor:
    """A comparison along one setting.

    Attributes:
        name: of the files.
        title: of the figure.
        axis: label of the horizontal axis.
        value: a group's place on it, `None` for a group that has none.
        left_out: the settings that the place stands for; groups equal in the others are a line.
        needs: what it takes, in words.
        ordered: whether places are numbers on an axis, else names side by side.
        relative: whether every line's best mean is subtracted.
        order: sort key of the places.
    """

    name: str
    title: str
    axis: str
    value: Callable[[Group], Any]
    left_out: tuple[str, ...]
    needs: str
    ordered: bool = True
    relative: bool = False
    order: Callable[[Any], Any] = lambda place: place

    def draw(self, study: Study, measures: Mapping[str, Measure]) -> Iterator[Drawing | Missing]:
        """A figure for every seven lines.

        Args:
            study: all groups.
            measures: label of the vertical axis to what is measured.
        """
        lines = [line for line in families(study, self.value, self.left_out) if len(line) > 1]
        if not lines or not measures:
            yield Missing(self.title, self.needs)
            return
        places = sorted({place for line in lines for place in line}, key=self.order)
        for suffix, number, page in pages(lines, CURVES):
            figure = self._page(page, places, measures)
            yield Drawing(self.name + suffix, self.title + number, FINAL, figure)

    def _page(
        self, lines: Sequence[Line], places: list[Any], measures: Mapping[str, Measure]
    ) -> Any:
        figure, axes = panels(len(measures), 1, (6.0, 3.0), share=True)
        for axis, (label, measure) in zip(axes, measures.items(), strict=True):
            handles = []
            for index, line in enumerate(lines):
                across = self._across(line, lines, places)
                handles.append(self._line(axis, line, across, measure, index))
            axis.set_ylabel(f"below the best: {label}" if self.relative else label)
        axes[-1].set_xlabel(self.axis)
        if self.ordered:
            scale_places(axes[-1], places)
        else:
            names = [text(str(place)) for place in places]
            slanted = sum(map(len, names)) > _MOST_LETTERS
            axes[-1].set_xticks(range(len(places)), names, **(_SLANTED if slanted else {}))
            axes[-1].set_xlim(-0.5, len(places) - 0.5)
        legend(figure, handles, [family_name(line, self.left_out) for line in lines])
        return figure

    def _across(self, line: Line, lines: Sequence[Line], places: list[Any]) -> dict[Any, float]:
        """Where the points stand: those of several lines at one place beside each other."""
        across = {}
        for place in line:
            there = [each for each in lines if place in each]
            index = next(index for index, each in enumerate(there) if each is line)
            aside = _ROOM * ((index + 0.5) / len(there) - 0.5)
            number = places.index(place) + aside
            across[place] = beside(place, places, aside) if self.ordered else number
        return across

    def _line(
        self, axis: Any, line: Line, across: Mapping[Any, float], measure: Measure, index: int
    ) -> Any:
        seeds = {place: _values(group, measure) for place, group in line.items()}
        points = {
            place: found
            for place in sorted(line, key=self.order)
            if (found := estimate(seeds[place])) is not None
        }
        best = max((point.mean for point in points.values()), default=0.0) * self.relative
        style = look(index) | ({} if self.ordered else {"linestyle": "none"})
        for place in points:
            values = [value - best for value in seeds[place]]
            if len(values) > 1:
                where = [across[place]] * len(values)
                axis.plot(where, values, ".", color=style["color"], alpha=0.5, markersize=4)
        return axis.errorbar(
            [across[place] for place in points],
            [point.mean - best for point in points.values()],
            [point.half_width or 0.0 for point in points.values()],
            **style,
            capsize=3,
            markersize=6,
        )


def families(study: Study, value: Callable[[Group], Any], left_out: tuple[str, ...]) -> list[Line]:
    """Groups that differ in one thing only: value to group."""
    lines: dict[tuple[Any, ...], Line] = {}
    for group in study.groups:
        place = value(group)
        if place is not None:
            lines.setdefault(group.identity_without(left_out), {})[place] = group
    return list(lines.values())


def family_name(line: Line, left_out: tuple[str, ...]) -> str:
    """What a line's groups have in common."""
    return next(iter(line.values())).name_without(left_out) or "all other settings equal"


def beside(place: float, places: Sequence[float], share: float) -> float:
    """A little aside of a place on the axis of `scale_places`.

    Args:
        place: from 0.
        places: all of the axis, from the least to the largest.
        share: of the least way from one place to the next; negative for the left.
    """
    positive = [each for each in places if each > 0]
    if len(places) < 2 or not positive:
        return place
    if place == 0:
        return share * positive[0]  # the axis is linear up to there
    ratios = (after / before for before, after in pairwise(positive))
    return float(place * min(ratios, default=1.0) ** share)


def scale_places(axis: Any, places: list[float]) -> None:
    """Logarithmic for settings that are tried by factors; 0 keeps a place of its own."""
    positive = [place for place in places if place > 0]
    if not positive or len(places) < 2:
        return
    if min(places) > 0:
        axis.set_xscale("log")
    else:
        axis.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
    axis.set_xticks(places, [f"{place:g}" for place in places])
    axis.minorticks_off()


def _values(group: Group, measure: Measure) -> list[float]:
    return [value for log in group.logs if (value := measure(log)) is not None]
