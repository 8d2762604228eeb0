"""Every row of the page on faults names tests that there are, and quotes what stands in them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
TESTS = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
QUOTED = re.compile(r"[`\"]([^`\"]+)[`\"]")
# How a copy of the plugin is named: its digest is another one after every change.
EXAMPLE = "0.1.0 [3f9c21aa]"
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())


@every_row
def test_named_tests_exist(row: str) -> None:
    named = TESTS.findall(row)
    assert named
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text())
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@every_row
def test_quoted_words_stand_in_the_named_files(row: str) -> None:
    """So that no message or metric is on the page that its tests do not know."""
    _, _, seen, lost, named, _ = row.split("|")
    files = {ROOT / file for file, _ in TESTS.findall(named)}
    known = " ".join(" ".join(file.read_text() for file in files).split())
    quoted = set(QUOTED.findall(f"{seen} {lost}")) - {EXAMPLE}
    assert not [words for words in quoted if words not in known]
