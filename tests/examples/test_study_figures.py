"""The page's pictures, drawn from runs with the design's own configurations."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from examples.study import design, jobs
from examples.study.figures import FIGURES, draw
from examples.study.recipe import Point
from examples.study.records import MEASURED
from examples.study.sweep import Job
from pcr_plugin.plots.figures import style
from pcr_plugin.plots.figures.catalogue import draw_all
from pcr_plugin.plots.figures.drawing import Drawing
from pcr_plugin.plots.runs.run import name_runs, read_runs
from pcr_plugin.plots.tables.study import study_of

SEEDS = (0, 1)


def lines(point: Point) -> Iterable[str]:
    """A log with the metrics that such a run has, and numbers of no meaning."""
    for step in (0, 8, 16, 24):
        data: dict[str, float] = {}
        for index, key in enumerate(MEASURED.values()):
            data[key] = 0.1 * index + 0.01 * step + 0.001 * point.seed
        if step:
            data |= {"actor/grad_norm": 1.0, "actor/kl_loss": 0.1, "timing_s/step": 2.0}
        if step and point.rule != "stock":
            data |= {"actor/pcr/alpha": 0.5, "actor/pcr/cos": -0.1, "actor/pcr/norm_pla": 1.0}
            data["actor/pcr/cos_final_sta"] = 0.2
            for part in ("mlp", "self_attn"):
                block = f"actor/pcr/block/0.{part}"
                data |= {f"{block}/cos": -0.1, f"{block}/alpha": 0.5}
        yield json.dumps({"step": step, "data": data})


def run(job: Job, point: Point) -> None:
    """Leave what a run leaves."""
    (job.folder / ".hydra").mkdir(parents=True)
    config = compose("ppo_trainer", overrides=job.arguments[0])
    OmegaConf.save(config, job.folder / ".hydra" / "config.yaml")
    (job.folder / "log.jsonl").write_text("\n".join(lines(point)) + "\n")
    (job.folder / "run.json").write_text(json.dumps(job.what))
    (job.folder / "done.json").write_text('{"seconds": 60}')


def _of(seed: int) -> list[Callable[[Point], bool]]:
    """Of the first seed the runs of every picture, of the second those of figure 4a."""
    pictures = FIGURES.values() if not seed else [FIGURES["alpha_fixed"]]
    return [picture.of for picture in pictures]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Job, Point]]:
    """The runs that the pictures are of."""
    made = design.engine()
    points = [
        point
        for point in made.points
        if point.seed in SEEDS and any(wanted(point) for wanted in _of(point.seed))
    ]
    todo = jobs.jobs(jobs.ENGINE, replace(made, points=points), tmp_path_factory.mktemp("study"))
    with initialize_config_module("verl.trainer.config", version_base=None):
        for job, point in zip(todo, points, strict=True):
            run(job, point)
    return list(zip(todo, points, strict=True))


def test_there_are_runs_for_every_picture(
    finished: list[tuple[Job, Point]], tmp_path: Path
) -> None:
    folder = tmp_path / "evidence"
    draw([job for job, _ in finished], folder)
    assert {path.stem for path in folder.glob("*.svg")} == FIGURES.keys()
    draw([], folder)
    assert not folder.exists()


def test_runs_that_are_not_finished_are_not_drawn(
    finished: list[tuple[Job, Point]], tmp_path: Path
) -> None:
    other = [replace(job, what=job.what | {"code": "other"}) for job, _ in finished]
    draw(other, tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()


def alpha_fixed(chosen: Iterable[Job]) -> list[Any]:
    """The axes of figure 4a, as `pcr plot` draws it of these runs; one page each."""
    paths = [job.folder / "log.jsonl" for job in chosen]
    with style.settings():
        found = list(draw_all(study_of(read_runs(name_runs(paths, [])), MEASURED["solved"])))
    figures = {each.name: each.figure for each in found if isinstance(each, Drawing)}
    return [axis for name, each in figures.items() if "alpha_fixed" in name for axis in each.axes]


def places(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_xticklabels()]


def test_figure_4a_has_fixed_strengths_and_the_automatic_one(
    finished: list[tuple[Job, Point]],
) -> None:
    chosen = [job for job, point in finished if FIGURES["alpha_fixed"].of(point)]
    assert len(chosen) == 10  # of two seeds
    [axis] = alpha_fixed(chosen)
    assert places(axis) == ["0.2", "0.5", "0.8", "1 (pcgrad)", "auto (pcr)"]
    [bars] = axis.containers  # one line, or they would not be compared
    assert len(bars.lines[0].get_xdata()) == 5


def test_figure_4a_of_all_rules_shows_each_of_the_automatic_ones(
    finished: list[tuple[Job, Point]],
) -> None:
    """Two ways to an automatic alpha are two places, and none is drawn over the other."""
    centre = replace(design.CENTRE, seed=0)
    wanted = {"soft0.5_floor", "pcgrad_floor", *design.CANDIDATES}
    chosen = [job for job, p in finished if p.rule in wanted and p == replace(centre, rule=p.rule)]
    assert len(chosen) == 4
    [axis] = alpha_fixed(chosen)
    assert places(axis) == ["0.5", "1 (pcgrad)", "auto (pcr, beta)", "auto (pcr, relative)"]
    [bars] = axis.containers
    assert len(bars.lines[0].get_xdata()) == 4


def test_pictures_are_of_what_their_names_say() -> None:
    points = [point for point in design.engine().points if point.seed == 4]
    seed = {name: list(filter(picture.of, points)) for name, picture in FIGURES.items()}
    assert len(seed["front"]) == len(seed["front_skill"]) == 7 + 5 * 3
    assert len({p.rate for p in seed["learning_rates"]}) == 3
    assert {p.scope for p in seed["scopes"]} == {"mlp", "attention", "all"}
    assert [p.rule for p in seed["alphas"]] == [design.CANDIDATES[0]]
    assert [p.rule for p in seed["cosines"]] == ["observe"]
    assert {p.rule for p in seed["gradient_norms"]} == set(design.FULL_RULES)
    assert not any(p.prompts for chosen in seed.values() for p in chosen)
