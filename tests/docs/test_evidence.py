"""The page's tables are those of the records beside it, and its pictures exist."""

import re
from pathlib import Path

from examples.study.evidence import FIGURES, filled, tables
from examples.study.records import read

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "evidence.md").read_text()
RECORDS = read(DOCS / "evidence.json")


def test_tables_are_made_of_the_records() -> None:
    assert "<!-- table: " in PAGE
    assert filled(PAGE, tables(RECORDS)) == PAGE


def test_pictures_are_there_and_shown_or_named() -> None:
    shown = re.findall(r"\]\((evidence/[\w-]+\.svg)\)", PAGE)
    assert bool(shown) == bool(RECORDS), "runs have pictures, and only runs"
    assert all((DOCS / each).exists() for each in shown)
    assert {path.stem for path in (DOCS / "evidence").glob("*")} <= set(FIGURES)
