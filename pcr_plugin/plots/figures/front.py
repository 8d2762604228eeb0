"""Score against perplexity, with the Pareto front (figures 1b and 6 of the paper)."""

from collections.abc import Iterator, Sequence
from typing import Any

from pcr_plugin.plots.figures.drawing import Drawing, Missing, pages
from pcr_plugin.plots.figures.factors import Line, family_name
from pcr_plugin.plots.figures.style import CURVES, labelled, legend, look, panels, text
from pcr_plugin.plots.runs.groups import Group, shown
from pcr_plugin.plots.runs.settings import BETA
from pcr_plugin.plots.tables.curves import final, over_seeds
from pcr_plugin.plots.tables.statistics import Estimate, pareto_front
from pcr_plugin.plots.tables.study import Study

_TITLE = "1b, 6. Score against perplexity, and the Pareto front"
_CAPTION = (
    "A point is a configuration: the mean over seeds of the final values, with 95 % intervals by "
    "Student's t. Up and to the left is better. Ringed points are on the front of all "
    "configurations: none other is better in one and at least as good in the other. Points that "
    "differ in β alone are joined; the numbers are β, where there is room for them."
)
_ROOM = (20.0, 9.0)  # for a number, in points of print
Point = tuple[Estimate, Estimate]


def draw_front(study: Study) -> Iterator[Drawing | Missing]:
    """The front; several pages of it if there are many rules."""
    score, perplexity = study.score, study.perplexity
    points = {}
    if score and perplexity:
        for group in study.groups:
            found = (
                over_seeds([final(log, perplexity) for log in group.logs]),
                over_seeds([final(log, score) for log in group.logs]),
            )
            if found[0] and found[1]:
                points[group.name] = (found[0], found[1])
    if len(points) < 2:
        yield Missing(
            _TITLE,
            "two configurations with a score and a metric whose name contains `perplexity`",
        )
        return
    lines = [line for line in _lines(study) if any(group.name in points for group in line.values())]
    for suffix, number, page in pages(lines, 2 * CURVES):
        yield Drawing("front" + suffix, _TITLE + number, _CAPTION, _figure(study, page, points))


def _lines(study: Study) -> list[Line]:
    """By everything but beta; where beta is not known, the group alone."""
    lines: dict[tuple[Any, ...], Line] = {}
    for group in study.groups:
        line = lines.setdefault(group.identity_without((BETA,)), {})
        line[group.settings.get(BETA, group.name)] = group
    return sorted(lines.values(), key=len, reverse=True)


def _figure(study: Study, lines: Sequence[Line], points: dict[str, Point]) -> Any:
    figure, [axis] = panels(1, 1, (6.5, 4.4))
    _draw_front(axis, list(points.values()))
    handles = [_draw_line(axis, line, points, index) for index, line in enumerate(lines)]
    axis.set_xlabel(labelled(f"{study.perplexity_name}, less is better", study.perplexity or ""))
    axis.set_ylabel(labelled(f"{study.score_name}, more is better", study.score or ""))
    legend(figure, handles, [family_name(line, (BETA,)) for line in lines])
    _write_betas(axis, lines, points)
    return figure


def _draw_front(axis: Any, points: Sequence[Point]) -> None:
    means = [(score.mean, perplexity.mean) for perplexity, score in points]
    front = [means[index] for index in pareto_front(means)]
    x, y = [perplexity for _, perplexity in front], [score for score, _ in front]
    axis.plot(x, y, color="#888888", linewidth=5, alpha=0.35, drawstyle="steps-post", zorder=1)
    axis.plot(x, y, "o", markersize=13, markerfacecolor="none", markeredgecolor="#555555", zorder=1)


def _draw_line(axis: Any, line: Line, points: dict[str, Point], index: int) -> Any:
    groups = [group for group in _by_beta(line) if group.name in points]
    found = [points[group.name] for group in groups]
    return axis.errorbar(
        [perplexity.mean for perplexity, _ in found],
        [score.mean for _, score in found],
        [score.half_width or 0.0 for _, score in found],
        [perplexity.half_width or 0.0 for perplexity, _ in found],
        **look(index),
        elinewidth=0.7,
        markersize=6,
    )


def _write_betas(axis: Any, lines: Sequence[Line], points: dict[str, Point]) -> None:
    """At the points of every line; none over one that is there already."""
    taken: list[tuple[float, float]] = []
    axis.autoscale_view()  # places on paper are those of the final axes
    for group in (each for line in lines if len(line) > 1 for each in _by_beta(line)):
        if group.name not in points:
            continue
        perplexity, score = points[group.name]
        pixels = axis.transData.transform((perplexity.mean, score.mean))
        x, y = (float(each) * 72 / axis.figure.dpi for each in pixels)
        if any(abs(x - a) < _ROOM[0] and abs(y - b) < _ROOM[1] for a, b in taken):
            continue
        taken.append((x, y))
        axis.annotate(
            text(shown(group.settings.get(BETA, ""))),
            (perplexity.mean, score.mean),
            xytext=(6, 5),
            textcoords="offset points",
            fontsize=7,
        )


def _by_beta(line: Line) -> list[Group]:
    return sorted(line.values(), key=lambda group: float(group.settings.get(BETA, 0.0)))
