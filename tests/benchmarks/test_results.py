"""A file of results is filled in parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import without_layouts
from benchmarks.report import page
from benchmarks.results import add, kept, write

CONDITIONS = {
    "command": "python -m benchmarks.actor_update",
    "date": "2026-01-02",
    "device": "cpu",
    "machine": "a CPU",
    "versions": {"torch": "1"},
    "ranks": 1,
    "repeats": 3,
    "model": "",
    "workload": {"width": 64, "engine": ()},
}


def filled(path: Path, *names: str, **changes: Any) -> dict[str, Any]:
    """The file after these layouts have been measured, in this order."""
    report = kept(path, {**CONDITIONS, **changes})
    for name in names:
        add(report, name, {"width": 1}, {"stock": {"median": 1.0}}, parts=name == "first")
        write(path, report, ("first", "second", "third"))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_layouts_that_are_not_measured_stay_with_their_date_and_repeats(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.json"
    filled(path, "second", "first")
    found = filled(path, "third", "second", date="2026-01-03", repeats=5)
    assert found["repeated"] == {"first": 3, "second": 5, "third": 5}
    assert found["dates"] == {"first": "2026-01-02", "second": "2026-01-03", "third": "2026-01-03"}
    assert list(found["results"]) == list(found["layouts"]) == ["first", "second", "third"]
    assert found["parts"] == ["first"]
    assert found["date"] == "2026-01-03"


@pytest.mark.parametrize("changes", [{"machine": "another CPU"}, {"versions": {"torch": "2"}}])
def test_other_conditions_begin_anew(
    tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "benchmarks.json"
    filled(path, "first")
    assert list(filled(path, "second", **changes)["results"]) == ["second"]
    assert f"{path} is replaced: {next(iter(changes))} differ" in caplog.text


def test_a_layout_that_is_no_longer_known_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.json"
    filled(path, "first")
    report = kept(path, CONDITIONS)
    write(path, report, ("second",))
    assert json.loads(path.read_text())["results"] == {}


def test_page_has_date_and_repeats_of_a_table_that_differs() -> None:
    docs = Path(__file__).parents[2] / "docs"
    report = json.loads((docs / "benchmarks_megatron.json").read_text())
    older = next(iter(report["results"]))
    report["dates"] = dict.fromkeys(report["results"], report["date"]) | {older: "2020-02-02"}
    report["repeated"] = dict.fromkeys(report["results"], report["repeats"]) | {older: 77}
    text = page("benchmarks_megatron", {"benchmarks_megatron": report})
    title = next(line for line in text.splitlines() if line.startswith(f"`{older}`"))
    assert title.endswith("on 2020-02-02, medians of 77):")
    assert text.count("2020-02-02") == text.count("medians of 77") == 1


def test_command_is_that_for_all_layouts() -> None:
    words = ["--out", "docs", "--layouts", "peers", "passes", "--repeats", "3"]
    assert without_layouts(words) == ["--out", "docs", "--repeats", "3"]
    named = [*words, "--name", "benchmarks_peers"]
    assert without_layouts(named) == named
