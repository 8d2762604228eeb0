"""The package's own source, read as syntax trees."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pcr_plugin"


class Import(NamedTuple):
    """One imported module.

    Attributes:
        file: where, relative to the root of the repository.
        module: its full name; for `from a import b` both `a` and `a.b` are given.
        deferred: inside a function, or for the type checker alone.
    """

    file: Path
    module: str
    deferred: bool


def files(*folders: str) -> list[Path]:
    """All Python files below some folders of the repository, relative to its root."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found)


@cache
def tree(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse((ROOT / file).read_text())


def imports(file: Path) -> list[Import]:
    """Everything that a file imports, anywhere in it."""
    return [Import(file, name, deferred) for name, deferred in _walk(tree(file), False)]


def _walk(node: ast.AST, deferred: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, deferred) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "the package imports by full names"
        assert node.module is not None
        yield node.module, deferred
        yield from ((f"{node.module}.{alias.name}", deferred) for alias in node.names)
    inner = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        inner = True
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, inner)


def folder_of(file: Path) -> str:
    """The part of the package a file belongs to: `rules`, or `update` for `update.py`."""
    return file.relative_to("pcr_plugin").parts[0].removesuffix(".py")
