"""What the figures show, read back from matplotlib's own objects."""

from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from pcr_plugin.plots.figures import style
from pcr_plugin.plots.figures.catalogue import draw_all
from pcr_plugin.plots.figures.drawing import Drawing, Missing, pages
from pcr_plugin.plots.runs.run import name_runs, read_runs
from pcr_plugin.plots.tables.statistics import t_quantile
from pcr_plugin.plots.tables.study import study_of
from pcr_plugin.plots.tables.summary import rows
from tests.support.plot_logs import PERPLEXITY, SCORE, write_json_lines
from tests.unit.plots.studies import BETAS, perplexity, score, steps, write_study

STANDARD_ERROR = 0.02 / 3**0.5  # seeds are 0.02 apart
HALF_WIDTH = t_quantile(2) * STANDARD_ERROR
# Of every figure of the paper that logs of veRL can give, and two more.
NAMES = [
    *("progress", "betas", "front", "cosines", "gradient_norms", "alpha_fixed", "scopes"),
    *("learning_rates", "alphas", "final_cosine", "sensitivity", "rule"),
]
Draw = Callable[[Path], tuple[dict[str, Any], list[Missing]]]


@pytest.fixture(scope="module")
def draw() -> Draw:
    def drawn(folder: Path) -> tuple[dict[str, Any], list[Missing]]:
        with style.settings():
            found = list(draw_all(study_of(read_runs(name_runs([folder], [])))))
        figures = {each.name: each.figure for each in found if isinstance(each, Drawing)}
        return figures, [each for each in found if isinstance(each, Missing)]

    return drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def figures(folder: Path, draw: Draw) -> dict[str, Any]:
    drawn, missing = draw(folder)
    assert missing == []
    return drawn


def legend_of(figure: Any) -> list[str]:
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def points(axis: Any, index: int) -> dict[float, tuple[float, float]]:
    """Place to (mean, half width) of the errorbar with this index."""
    bars = axis.containers[index]
    x, y = bars.lines[0].get_data()
    ends = bars.lines[2][-1].get_segments()
    return {
        float(place): (float(mean), float(end[1][1] - mean))
        for place, mean, end in zip(x, y, ends, strict=True)
    }


def test_every_figure_is_drawn(figures: dict[str, Any]) -> None:
    firsts = list(dict.fromkeys(name.partition("-")[0] for name in figures))
    assert firsts == NAMES


def test_figure_1a_has_mean_and_interval_of_every_beta(figures: dict[str, Any]) -> None:
    top, bottom = figures["betas"].axes
    assert legend_of(figures["betas"]) == ["stock, lr 1e-06", "pcr, scope mlp, lr 1e-06"]
    for index, rule in enumerate([None, "pcr"]):
        above, below = (list(points(axis, index).values()) for axis in (top, bottom))
        for place, beta in enumerate(BETAS):
            assert above[place] == pytest.approx((score(rule, beta, 2), HALF_WIDTH))
            assert below[place] == pytest.approx((perplexity(rule, beta), 0.0))
    assert top.get_xscale() == "log"
    assert SCORE[-20:] in top.get_ylabel()
    assert PERPLEXITY in bottom.get_ylabel()
    assert "β" in bottom.get_xlabel()


def test_rules_at_the_same_beta_stand_side_by_side(figures: dict[str, Any]) -> None:
    top, bottom = figures["betas"].axes
    ratios = [after / before for before, after in pairwise(BETAS)]
    for beta, stock, pcr in zip(BETAS, points(top, 0), points(top, 1), strict=True):
        assert stock < beta < pcr
        assert stock * pcr == pytest.approx(beta**2)
        assert pcr / stock == pytest.approx(min(ratios) ** 0.25)
    places = [label.get_text() for label in bottom.get_xticklabels()]
    assert places == [f"{beta:g}" for beta in BETAS]


def test_numbers_at_the_front_are_not_over_each_other(figures: dict[str, Any]) -> None:
    [axis] = figures["front"].axes
    figures["front"].draw_without_rendering()
    boxes = [each.get_window_extent() for each in axis.texts]
    assert {each.get_text() for each in axis.texts} == {f"{beta:g}" for beta in BETAS}
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_any_metric_of_which_less_is_better_can_take_the_place_of_perplexity(folder: Path) -> None:
    study = study_of(read_runs(name_runs([folder], [])), perplexity="actor/kl_loss")
    with style.settings():
        found = {each.name: each for each in draw_all(study) if isinstance(each, Drawing)}
    [axis] = found["front"].figure.axes
    assert axis.get_xlabel() == "cost, less is better\nactor/kl_loss"
    assert found["betas"].figure.axes[1].get_ylabel() == "cost\nactor/kl_loss"
    assert {"cost", "change of cost"} <= rows(study)[0].cells.keys()


def test_figure_1b_rings_the_front(figures: dict[str, Any]) -> None:
    [axis] = figures["front"].axes
    rings = axis.lines[1]
    # Stock is beaten everywhere: pcr at its largest beta has less perplexity than any stock run
    # and a score of 0.5, the best of stock. Four configurations of pcr tie at the middle one.
    front = [(perplexity("pcr", beta), score("pcr", beta, 2)) for beta in (0.25, 0.05)]
    pairs = zip(*rings.get_data(), strict=True)
    ringed = {(round(float(x), 9), round(float(y), 9)) for x, y in pairs}
    assert sorted(ringed) == [pytest.approx(each) for each in front]


def test_figure_1c_is_the_cosine_of_layer_and_step(figures: dict[str, Any]) -> None:
    maps = [axis for name in figures if name.startswith("cosines") for axis in figures[name].axes]
    maps = [axis for axis in maps if axis.get_xlabel() == "training step"]
    assert len(maps) == 8  # configurations with a rule
    [both] = [axis for axis in maps if "scope all" in axis.get_title()]
    cells = both.collections[0].get_array()
    assert cells.shape == (6, 12)
    assert cells[:, 0].tolist() == pytest.approx([-0.1, 0.0, 0.1, -0.1, 0.0, 0.1])
    names = [label.get_text() for label in both.get_yticklabels()]
    assert names[0] == "0.mlp"
    assert names[-1] == "2.self_attn"


def test_figure_4a_sets_fixed_alpha_beside_the_automatic_one(figures: dict[str, Any]) -> None:
    [axis] = figures["alpha_fixed"].axes
    places = [label.get_text() for label in axis.get_xticklabels()]
    assert places == ["0.2", "0.8", "auto (pcr)"]
    means = [mean for mean, _ in points(axis, 0).values()]
    assert means == pytest.approx([0.5, 0.5, 0.6])


def test_figure_4b_has_the_typical_time_of_a_step(figures: dict[str, Any]) -> None:
    _, bottom = figures["scopes"].axes
    assert [label.get_text() for label in bottom.get_xticklabels()] == ["mlp", "attention", "all"]
    assert [mean for mean, _ in points(bottom, 0).values()] == [10.0, 10.0, 11.0]


def test_figure_6_is_the_loss_against_the_best_beta(figures: dict[str, Any]) -> None:
    [axis] = figures["sensitivity"].axes
    for index in (0, 1):
        means = [mean for mean, _ in points(axis, index).values()]
        assert means == pytest.approx([-0.1, 0.0, -0.1])


def test_figure_5a_has_a_histogram_per_kind(figures: dict[str, Any]) -> None:
    [axis] = [
        axis
        for name in figures
        if name.startswith("alphas")
        for axis in figures[name].axes
        if "scope all" in axis.get_title()
    ]
    means = sorted(line.get_xdata()[0] for line in axis.lines)
    assert means == pytest.approx([0.4, 0.7])
    assert len({patch.get_hatch() for patch in axis.patches}) == 2


def test_bands_are_there_for_several_seeds_only(figures: dict[str, Any]) -> None:
    bands, lines = 0, 0
    for name in figures:
        if name.startswith("progress"):
            axis = figures[name].axes[0]
            lines += len(axis.lines)
            bands += len(axis.collections)
    assert lines == 11
    assert bands == 8  # not of the two fixed alphas and the other learning rate


def test_a_rule_looks_the_same_on_every_page_that_has_it_once(figures: dict[str, Any]) -> None:
    looks: dict[str, list[str]] = {}
    for name in figures:
        if name.startswith("progress"):
            lines = figures[name].legends[0].get_lines()
            rules = [label.partition(", β")[0] for label in legend_of(figures[name])]
            shown = [f"{line.get_color()} {line.get_linestyle()}" for line in lines]
            assert len(set(shown)) == len(rules)
            if len(set(rules)) == len(rules):
                for rule, look in zip(rules, shown, strict=True):
                    looks.setdefault(rule, []).append(look)
    assert len(looks["pcr, scope mlp"]) >= 2
    assert all(len(set(each)) == 1 for each in looks.values())


def test_curves_differ_in_more_than_colour(figures: dict[str, Any]) -> None:
    looks = [style.look(index) for index in range(2 * style.CURVES)]
    for one in looks:
        same_colour = [other for other in looks if other["color"] == one["color"]]
        assert len({str(other["linestyle"]) for other in same_colour}) == len(same_colour)
    assert len({str(look["linestyle"]) for look in looks[: style.CURVES]}) == style.CURVES
    assert len({look["marker"] for look in looks[: style.CURVES]}) == style.CURVES


def test_table(folder: Path) -> None:
    found = {row.name: row for row in rows(study_of(read_runs(name_runs([folder], []))))}
    row = found["stock, β 0.05, lr 1e-06"]
    assert (row.runs, row.seeds, row.steps) == (3, ["1", "2", "3"], (12, 12))
    cells = {heading: cell for heading, cell in row.cells.items() if cell}
    assert cells["score"].mean == pytest.approx(0.5)
    assert cells["score"].error == pytest.approx(STANDARD_ERROR)
    assert cells["perplexity"].mean == pytest.approx(10.0)
    assert cells["change of perplexity"].mean == pytest.approx(4.0)
    assert cells["KL"].mean == pytest.approx(0.12)
    assert cells["gradient norm, mean"].mean == pytest.approx(1.0)
    assert cells["gradient norm, variance"].mean == pytest.approx(0.25 * 12 / 11)
    assert row.cells["α, mean over steps"] is None
    assert found["pcr, scope mlp, β 0.05, lr 1e-06"].cells["α, mean over steps"] is not None


def test_a_single_stock_run_gets_what_it_has_and_a_reason_for_the_rest(
    tmp_path: Path, draw: Draw
) -> None:
    write_json_lines(tmp_path / "mine.jsonl", steps(None, 0.05, 1))
    figures, missing = draw(tmp_path)
    assert list(figures) == ["progress", "gradient_norms"]
    needs = " ".join(each.needs for each in missing)
    for words in ("two values of β", "pcr.scope", "log_blocks", "actor/pcr/cos_final_sta"):
        assert words in needs
    assert len({each.title for each in missing}) == 11


def test_a_run_with_nothing_that_is_known(tmp_path: Path, draw: Draw) -> None:
    write_json_lines(tmp_path / "mine.jsonl", [(1, {"something": 1.0})])
    figures, missing = draw(tmp_path)
    assert figures == {}
    assert len(missing) == 12


def betas_of(rules: dict[str, tuple[float, ...]], folder: Path) -> Any:
    """Figure 1a of runs with these names at these betas; its only axes."""
    from pcr_plugin.plots.runs.table import read_table

    table = "runs:\n"
    for rule, betas in rules.items():
        for beta in betas:
            name = f"{rule}{beta}.jsonl"
            write_json_lines(folder / name, [(1, {SCORE: beta, "actor/kl_coef": beta})])
            table += f"  - {{path: {name}, label: {rule}}}\n"
    (folder / "runs.yaml").write_text(table)
    with style.settings():
        found = list(draw_all(study_of(read_runs(read_table(folder / "runs.yaml")))))
        [figure] = [e.figure for e in found if isinstance(e, Drawing) and e.name == "betas"]
        figure.draw_without_rendering()
    [axis] = figure.axes
    return axis


def test_who_is_alone_at_a_beta_stands_at_it(tmp_path: Path) -> None:
    axis = betas_of({"x": (0, 0.1, 1), "y": (0, 1)}, tmp_path)
    one, other = (axis.containers[index].lines[0].get_xdata() for index in (0, 1))
    assert list(one) == pytest.approx([-0.0125, 0.1, 10**-0.125])
    assert list(other) == pytest.approx([0.0125, 10**0.125])


def test_beta_0_has_a_place_on_a_logarithmic_axis(tmp_path: Path) -> None:
    axis = betas_of({"x": (0, 0.1, 1)}, tmp_path)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.1", "1"]
    pixels = axis.transData.transform([(0, 0), (0.1, 0), (1, 0)])[:, 0]
    assert pixels[0] < pixels[1] < pixels[2]


def test_pages_keep_together_what_belongs_together() -> None:
    cut = [page for _, _, page in pages("aabbbccccc", 4, str)]
    assert cut == [list("aa"), list("bbb"), list("cccc"), list("c")]
    assert [page for _, _, page in pages("aabb", 4, str)] == [list("aabb")]
    assert [name for name, _, _ in pages("ab", 1)] == ["-1", "-2"]
    assert list(pages("", 3)) == []


@pytest.mark.parametrize(
    "name", ["$\\frac{", "_hidden", "a\x00b\nc", "ж" * 200, "\u202eevil", "100 % $x$ {y}"]
)
def test_any_name_can_be_drawn(name: str) -> None:
    with style.settings():
        figure, [axis] = style.panels(1, 1)
        axis.set_title(style.text(name))
        style.legend(figure, axis.plot([1, 2]), [name])
        figure.draw_without_rendering()
    assert len(legend_of(figure)) == 1
