"""Files and functions stay small, and no file is named for being of use."""

import ast
from pathlib import Path

import pytest

from tests.unit.source_tree import ROOT, files, tree

EVERYTHING = files("pcr_plugin", "hydra_plugins", "tests", "benchmarks", "examples", "recipes")
# Functions with the names and the meaning of `torch.cuda`'s.
MIRRORS = [Path("pcr_plugin/verl_cpu/device.py")]
DOCUMENTED = [file for file in files("pcr_plugin", "hydra_plugins") if file not in MIRRORS]
# Modules with the names of another library's.
STAND_INS = Path("tests/openrlhf/stand_ins")
NAMED_HERE = [file for file in EVERYTHING if STAND_INS not in file.parents]
LINES_PER_FILE = 300
LINES_PER_BODY = 50


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first to the last statement, without the docstring."""
    statements = function.body
    if ast.get_docstring(function) is not None:
        statements = statements[1:]
    if not statements:
        return 0
    end = statements[-1].end_lineno
    assert end is not None
    return end - statements[0].lineno + 1


@pytest.mark.parametrize("file", EVERYTHING, ids=str)
def test_sizes(file: Path) -> None:
    assert len((ROOT / file).read_text().splitlines()) <= LINES_PER_FILE
    for node in ast.walk(tree(file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert body_length(node) <= LINES_PER_BODY, f"{node.name}, line {node.lineno}"


@pytest.mark.parametrize("file", NAMED_HERE, ids=str)
def test_names_say_what_is_inside(file: Path) -> None:
    assert file.stem not in {"utils", "util", "helpers", "common", "misc"}


@pytest.mark.parametrize("file", DOCUMENTED, ids=str)
def test_public_things_are_documented_and_annotated(file: Path) -> None:
    module = tree(file)
    assert ast.get_docstring(module), "a module says what it is for"
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, f"{node.name}, line {node.lineno}"
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    public = [node for node in classes if not node.name.startswith("_")]
    # A method that overrides one of a base class inherits its documentation.
    owners = [module, *(node for node in public if not node.bases)]
    methods = [node for owner in owners for node in owner.body]
    for node in [*public, *methods]:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name}, line {node.lineno}"
