"""Copies of source folders."""

import shutil
from pathlib import Path


def copy_source(folder: Path, place: Path) -> None:
    """Without bytecode, which other processes write and rename while this reads.

    Args:
        folder: what is copied.
        place: of the copy; not there yet.
    """
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("__pycache__"))
