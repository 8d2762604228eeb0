"""A reference that shares code with what it judges is none."""

import ast
from pathlib import Path

import pytest

SOURCES = sorted(Path(__file__).parent.glob("*.py"))
# What the oracle's modules lean on; none of these may lean on the package either.
SUPPORT = [Path(__file__).parents[1] / "support" / "trajectory.py"]


@pytest.mark.parametrize("path", [*SOURCES, *SUPPORT], ids=lambda path: path.name)
def test_imports_nothing_of_the_package_nor_of_verl(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in ("pcr_plugin", "verl", "hydra_plugins")


def test_there_are_sources() -> None:
    names = {path.stem for path in SOURCES}
    assert {"architecture", "experts", "linear", "model", "objective", "gradients", "rule"} <= names
