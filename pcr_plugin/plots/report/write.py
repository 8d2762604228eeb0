"""From runs to files."""

import re
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from pcr_plugin.plots.figures.catalogue import draw_all
from pcr_plugin.plots.figures.drawing import Drawing, Missing
from pcr_plugin.plots.figures.style import settings
from pcr_plugin.plots.report.facts import facts_of
from pcr_plugin.plots.report.page import MARK, page
from pcr_plugin.plots.tables.study import Study
from pcr_plugin.plots.tables.summary import rows

REPORT = "report.html"
_DOTS_PER_INCH = 150
# As the report names its own figures; a later report removes those of the one it replaces.
_FILES = re.compile(r"Files: ([a-z_]+(?:-\d+)?)\.png and \.svg\.")


def check_folder(folder: Path) -> None:
    """Before anything is read: may a report be written there?

    Raises:
        ValueError: a file stands there, or a report that is not from here.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder}: this is a file; a folder is needed")
    report = folder / REPORT
    if report.exists() and MARK not in report.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(
            f"--out {folder}: its {REPORT} is not of `pcr plot` and stays; name another folder"
        )


def write(study: Study, folder: Path, now: datetime) -> tuple[list[Path], list[Missing]]:
    """Draw everything, then write it; an earlier report in the folder is replaced.

    Args:
        study: the runs.
        folder: it is made if it is not there.
        now: for the report.

    Returns:
        The files, the report first, and what could not be drawn.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: see `check_folder`.
    """
    check_folder(folder)
    with settings():
        found = list(draw_all(study))
        drawings = [each for each in found if isinstance(each, Drawing)]
        pictures = [(each, _image(each.figure, "png")) for each in drawings]
        vectors = [_image(each.figure, "svg") for each in drawings]
    missing = [each for each in found if isinstance(each, Missing)]
    content = page(rows(study), pictures, missing, facts_of(study, now))
    folder.mkdir(parents=True, exist_ok=True)
    _remove_figures_of(folder / REPORT)
    files = [folder / REPORT]
    for (each, png), svg in zip(pictures, vectors, strict=True):
        for suffix, image in ((".png", png), (".svg", svg)):
            files.append(folder / (each.name + suffix))
            files[-1].write_bytes(image)
    files[0].write_text(content, encoding="utf-8")
    return files, missing


def _image(figure: Any, kind: str) -> bytes:
    stream = BytesIO()
    # Without a date, the same data give the same file.
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(stream, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)
    return stream.getvalue()


def _remove_figures_of(report: Path) -> None:
    if report.exists():
        for name in _FILES.findall(report.read_text(encoding="utf-8", errors="replace")):
            for suffix in (".png", ".svg"):
                (report.parent / (name + suffix)).unlink(missing_ok=True)
