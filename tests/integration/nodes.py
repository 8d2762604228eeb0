"""What is installed on a Ray node: environments in which its workers find another pcr-plugin."""

import os
from pathlib import Path

from tests.support.copying import copy_source

ROOT = Path(__file__).parents[2]
# Of the node that is as it should be, and of the one that is not.
GOOD, OTHER = "127.0.0.2", "127.0.0.3"

# Python imports this file in every process that has its folder on the path. Ray adds the driver's
# folder to the path of its workers, all on one machine here, so the order of that does not decide.
_FOUND = """
import sys
from importlib.machinery import PathFinder


class OfThisNode:
    place = {place!r}

    def find_spec(self, name, path=None, target=None):
        if name != "pcr_plugin":
            return None
        if self.place is None:
            raise ModuleNotFoundError("No module named 'pcr_plugin'", name=name)
        return PathFinder.find_spec(name, [self.place])


sys.meta_path.insert(0, OfThisNode())
"""
_PASSES = "        pair = passes(beta)\n"
_WAIT = """        type(self).calls = getattr(type(self), "calls", 0) + 1
        import os, pathlib, time
        if "WAIT_IN_FILE" in os.environ and type(self).calls == {step}:
            pathlib.Path(os.environ["WAIT_IN_FILE"]).touch()
            time.sleep(600)
"""


def without_the_plugin(folder: Path) -> dict[str, str]:
    """No pcr-plugin; the platform `cpu`, which is a part of it, under another name."""
    _write_finder(folder, None)
    platform = folder / "cpu_platform"
    copy_source(ROOT / "pcr_plugin" / "verl_cpu", platform)
    for file in platform.glob("*.py"):
        file.write_text(file.read_text().replace("pcr_plugin.verl_cpu", platform.name))
    return _variables(folder) | {"VERL_USE_EXTERNAL_MODULES": f"{platform.name}.plugin"}


def with_another_release(folder: Path) -> dict[str, str]:
    """A release that is as good, but another one."""
    _changed(folder, "version.py", "__version__ = ", '__version__ = "0.0.9"  # ')
    return _variables(folder)


def with_a_broken_copy(folder: Path) -> dict[str, str]:
    """A file of which the end is missing."""
    _changed(folder, "verl/refusals.py", "def check_engine(", "def check_engine(:")
    return _variables(folder)


def that_waits(folder: Path, step: int) -> dict[str, str]:
    """The plugin, which waits between the gradients and the optimizer of a step if asked to.

    Args:
        folder: for the copy.
        step: number of the step, from 1.

    Returns:
        Variables of a node; one with `WAIT_IN_FILE` makes that file and waits.
    """
    _changed(folder, "update.py", _PASSES, _PASSES + _WAIT.format(step=step))
    return _variables(folder)


def _changed(folder: Path, file: str, text: str, other: str) -> None:
    copy_source(ROOT / "pcr_plugin", folder / "copy" / "pcr_plugin")
    path = folder / "copy" / "pcr_plugin" / file
    before = path.read_text()
    assert before.count(text) == 1
    path.write_text(before.replace(text, other))
    _write_finder(folder, folder / "copy")


def _write_finder(folder: Path, place: Path | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = _FOUND.format(place=None if place is None else str(place))
    (folder / "sitecustomize.py").write_text(text)


def _variables(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
