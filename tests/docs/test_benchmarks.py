"""Pages of the benchmarks are made of the numbers in the files beside them."""

import json
from pathlib import Path

import pytest

from benchmarks.report import page
from benchmarks.scaling.page import expected_counts, found_counts
from benchmarks.scaling.page import page as scaling_page

DOCS = Path(__file__).parents[2] / "docs"
REPORTS = {path.stem: json.loads(path.read_text()) for path in DOCS.glob("benchmarks*.json")}
SCALING = json.loads((DOCS / "scaling.json").read_text())


@pytest.mark.parametrize("name", REPORTS)
def test_page_shows_the_numbers_in_the_file(name: str) -> None:
    assert (DOCS / f"{name}.md").read_text() == page(name, REPORTS)


@pytest.mark.parametrize("name", REPORTS)
def test_looking_for_a_gradient_of_the_surrogate_costs_nothing(name: str) -> None:
    """`backward` of a shared forward pass ends at the model's output."""
    for layout, rows in REPORTS[name]["results"].items():
        for update, row in rows.items():
            parts = row.get("parts", {})
            if update.startswith("shared_forward") and "backward" in parts:
                assert parts["backward"] < 0.01 * parts["backward of p"], (layout, update)


def test_page_on_scaling_shows_the_numbers_in_the_file() -> None:
    assert (DOCS / "scaling.md").read_text() == scaling_page(SCALING)


@pytest.mark.parametrize("ranks", ["2", "4"])
def test_collectives_that_were_counted_are_the_formula_s(ranks: str) -> None:
    rows = SCALING["ranks"][ranks]["counts"]
    assert {"stock", "two_forward", "shared_forward"} < {row["update"] for row in rows}
    for row in rows:
        assert found_counts(row) == expected_counts(row), row["update"]
