"""Two copies of the package are told apart by what is in their files."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import pcr_plugin
from pcr_plugin.fingerprint import this_copy
from tests.support.copying import copy_source

PACKAGE = Path(pcr_plugin.__file__).parent


def _longer(folder: Path) -> None:
    with (folder / "update.py").open("a") as file:
        file.write("# mine\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a line more": _longer,
    "a file less": lambda folder: (folder / "metrics.py").unlink(),
    "a file renamed": lambda folder: (folder / "metrics.py").rename(folder / "meters.py"),
    "a file more": lambda folder: (folder / "rules" / "mine.py").touch(),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    copy_source(PACKAGE, tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_where_it_is_does_not_matter(copy: Path) -> None:
    assert re.fullmatch(rf"{re.escape(pcr_plugin.__version__)} \[[0-9a-f]{{8}}\]", this_copy())
    # Nor what Python has compiled, which the copy is without.
    assert (PACKAGE / "__pycache__").exists()
    assert this_copy(copy) == this_copy()


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_in_it_does(what: str, copy: Path) -> None:
    CHANGES[what](copy)
    assert this_copy(copy) != this_copy()
