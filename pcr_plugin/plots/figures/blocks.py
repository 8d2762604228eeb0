"""Blocks: cosines over layers and steps (figure 1c), and the distribution of alpha (5a)."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import nan
from typing import Any

from pcr_plugin.plots.figures.drawing import Drawing, Missing, pages
from pcr_plugin.plots.figures.style import COLOURS, COSINES, HATCHES, legend, panels, text
from pcr_plugin.plots.runs.groups import Group
from pcr_plugin.plots.runs.settings import RULE
from pcr_plugin.plots.tables.blocks import block_curves, blocks_with, values_by_kind
from pcr_plugin.plots.tables.curves import Curve
from pcr_plugin.plots.tables.study import Study

_KINDS = ("MLP", "attention", "other")
_FIXED = ("soft", "pcgrad")  # rules whose alpha has no distribution
_PANELS = 6  # of a page
_BINS = 20
_MOST_ROWS = 16  # with a name at every one
_NEEDS = "the metrics `actor/pcr/block/<layer>.<part>/{}`, which `pcr.log_blocks=true` logs"
_COSINES = "1c. Cosine of the two gradients, layer by layer over the steps"
_ALPHAS = "5a. Distribution of the projection strength α, MLP against attention"


def draw_cosines(study: Study) -> Iterator[Drawing | Missing]:
    """A panel per configuration: a row per block, a column per step."""
    shown = [group for group in study.groups if blocks_with(group.logs, "cos")]
    if not shown:
        yield Missing(_COSINES, _NEEDS.format("cos"))
    for suffix, number, page in pages(shown, _PANELS, Group.conditions):
        caption = (
            "Cosine of surrogate and KL gradient, mean over seeds; dark is conflict. White: not "
            "logged, which is where one of the two gradients is zero."
        )
        yield Drawing("cosines" + suffix, _COSINES + number, caption, _heat_maps(page))


def draw_alphas(study: Study) -> Iterator[Drawing | Missing]:
    """A panel per configuration: a histogram per kind of module."""
    shown = [
        group
        for group in study.groups
        if group.settings.get(RULE) not in _FIXED and blocks_with(group.logs, "alpha")
    ]
    if not shown:
        yield Missing(_ALPHAS, "a run of pcr with " + _NEEDS.format("alpha"))
    elif not any("attention" in values_by_kind(group.logs, "alpha") for group in shown):
        yield Missing("attention in " + _ALPHAS, "a run with `pcr.scope=all` or `attention`")
    for suffix, number, page in pages(shown, _PANELS, Group.conditions):
        caption = (
            "Every block in conflict at every step of every seed is one value; the area under each "
            "outline is 1, the broken line is the mean."
        )
        yield Drawing("alphas" + suffix, _ALPHAS + number, caption, _histograms(page))


def _grid(count: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    columns = 1 if count == 1 else 2
    if count == 1:
        size = (6.5, 1.25 * size[1])
    figure, axes = panels(-(-count // columns), columns, size)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _heat_maps(groups: Sequence[Group]) -> Any:
    cosines = [block_curves(group.logs, "cos") for group in groups]
    limit = max(abs(mean) for found in cosines for each in found.values() for mean in each.means)
    figure, axes = _grid(len(groups), (4.4, 3.0))
    for axis, group, found in zip(axes, groups, cosines, strict=True):
        image = _heat_map(axis, found, limit or 1.0)
        axis.set_title(text(group.name), fontsize=9)
    figure.colorbar(image, ax=axes, label="cosine of surrogate and KL gradient", shrink=0.8)
    return figure


def _heat_map(axis: Any, found: Mapping[str, Curve], limit: float) -> Any:
    steps = sorted({step for each in found.values() for step in each.steps})
    rows = [dict(zip(each.steps, each.means, strict=True)) for each in found.values()]
    cells = [[row.get(step, nan) for step in steps] for row in rows]
    image = axis.pcolormesh(
        _edges(steps),
        [row - 0.5 for row in range(len(rows) + 1)],
        cells,
        cmap=COSINES,
        vmin=-limit,
        vmax=limit,
        rasterized=True,  # a picture within the SVG, not a path per cell
    )
    every = -(-len(rows) // _MOST_ROWS)
    names = [text(name) for name in found][::every]
    axis.set_yticks(range(0, len(rows), every), names, fontsize=7)
    axis.grid(False)
    axis.set_xlabel("training step")
    axis.set_ylabel("block")
    return image


def _edges(steps: Sequence[int]) -> list[float]:
    """A cell reaches half way to its neighbours, which may be unevenly spaced."""
    if len(steps) == 1:
        return [steps[0] - 0.5, steps[0] + 0.5]
    middles = [(left + right) / 2 for left, right in pairwise(steps)]
    first, last = steps[0] - (middles[0] - steps[0]), steps[-1] + (steps[-1] - middles[-1])
    return [first, *middles, last]


def _histograms(groups: Sequence[Group]) -> Any:
    figure, axes = _grid(len(groups), (4.4, 2.8))
    edges = [index / _BINS for index in range(_BINS + 1)]
    handles: dict[str, Any] = {}
    for axis, group in zip(axes, groups, strict=True):
        values = values_by_kind(group.logs, "alpha")
        for kind in sorted(values, key=_KINDS.index):
            index = _KINDS.index(kind)
            _, _, [outline] = axis.hist(
                values[kind],
                bins=edges,
                density=True,
                histtype="stepfilled",
                facecolor="none",
                edgecolor=COLOURS[index],
                hatch=HATCHES[index],
                linewidth=1.5,
            )
            mean = sum(values[kind]) / len(values[kind])
            axis.axvline(mean, color=COLOURS[index], linestyle="--", linewidth=1)
            handles[kind] = outline
        axis.set_title(text(group.name), fontsize=9)
        axis.set_xlim(0, 1)
        axis.set_xlabel("α")
        axis.set_ylabel("density")
    legend(figure, list(handles.values()), list(handles))
    return figure
