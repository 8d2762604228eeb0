"""The page's tables are those of the records beside it, and its pictures exist."""

import re
from dataclasses import replace
from pathlib import Path

from examples.study import design
from examples.study.contents import tables
from examples.study.evidence import filled
from examples.study.figures import FIGURES
from examples.study.records import Found, read

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "evidence.md").read_text()
FOUND = read(DOCS / "evidence.json")


def test_tables_are_made_of_the_records() -> None:
    assert filled(PAGE, tables(FOUND), DOCS) == PAGE


def test_every_table_and_every_figure_has_its_place() -> None:
    assert re.findall(r"<!-- table: ([\w ]+) -->", PAGE) == list(tables(Found([], {})))
    assert sorted(re.findall(r"<!-- figure: ([\w ]+) -->", PAGE)) == sorted(FIGURES)


def test_pictures_are_there_and_shown_if_there_are_runs() -> None:
    shown = re.findall(r"\]\((evidence/[\w-]+\.svg)\)", PAGE)
    assert bool(shown) == bool(FOUND.records), "runs have pictures, and only runs"
    assert all((DOCS / each).exists() for each in shown)
    assert {path.stem for path in (DOCS / "evidence").glob("*")} <= set(FIGURES)


def test_the_page_says_whether_it_has_been_run() -> None:
    assert ("not been run yet" in PAGE) == (not FOUND.records)


def test_the_design_is_told_with_its_numbers() -> None:
    """In the examples' own description, too."""
    readme = (DOCS.parent / "examples" / "study" / "README.md").read_text()
    engine, full = design.engine().points, design.full().points
    assert f"{len(engine)} runs" in readme
    assert f"{len(full)} runs" in readme
    for size in (design.ENGINE_SIZES.steps, design.ENGINE_SIZES.prompts, design.NOISY.prompts):
        assert re.search(rf"\b{size} (steps|questions)", readme), size
    assert f"β {design.CENTRE.beta:g}" in PAGE


def test_the_setting_teaches_and_forgets() -> None:
    """Else the study would say nothing of either."""
    engine = [record for record in FOUND.records if record.tier == "engine"]
    for record in engine:
        rise = record.rise("solved")
        assert rise is not None
        assert rise > (0.1 if record.point.beta <= 0.1 else 0), record.point
    loose = [r for r in engine if r.point == replace(design.CENTRE, beta=0.001, seed=r.point.seed)]
    assert {record.point.seed for record in loose} == set(design.SEEDS)
    assert all((record.rise("skill") or 0) <= -0.05 for record in loose), "five of 98 facts"
