"""docs/estimators.md is made of the numbers in docs/estimators.json, and the default is its own."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.estimators.page import page
from benchmarks.estimators.settings import Settings
from pcr_plugin.config.settings import DEFAULT_PROBES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "estimators.json").read_text())
    return found


def test_page_shows_the_numbers_in_the_file(report: dict[str, Any]) -> None:
    assert (DOCS / "estimators.md").read_text() == page(report)


def test_recommended_number_of_probes_is_the_default(report: dict[str, Any]) -> None:
    assert report["chosen_probes"] == DEFAULT_PROBES


def test_model_is_the_demo_s(report: dict[str, Any]) -> None:
    assert report["settings"]["start"] == asdict(Settings())["start"]


def test_what_the_page_says_of_the_choice(report: dict[str, Any]) -> None:
    """Sentences without a number in them."""
    rows = {
        (row["estimator"], row["micro_batches"], row["probes"]): row for row in report["estimates"]
    }
    counts = report["settings"]["micro_batches"]
    chosen = rows["sequence", 0, DEFAULT_PROBES]
    for objective in ("pla", "sta"):
        name = f"sd_{objective}"
        assert chosen[name] < report["resampled"][name]
        for count in counts:
            assert chosen[name] < rows["split_half", count, 0][name]
    for probes in report["settings"]["probes"]:
        row = rows["sequence", 0, probes]
        assert all(abs(row[f"bias_{o}"]) < 4 * row[f"bias_{o}_error"] for o in ("pla", "sta"))
