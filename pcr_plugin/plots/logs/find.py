"""From what the user names to log files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pcr_plugin.plots.logs import console, json_lines, tensorboard
from pcr_plugin.plots.logs.log import Log

_READERS = {
    "file logger": json_lines.read,
    "TensorBoard": tensorboard.read,
    "console": console.read,
}
_CONSOLE_SUFFIXES = (".log", ".txt", ".out")
ALLOWED = (
    "veRL's file logger (JSON lines), TensorBoard event files, or the console's output "
    "with lines `step:1 - ...`"
)


@dataclass(frozen=True)
class LogFile:
    """Where one run's metrics are.

    Attributes:
        path: a file; for TensorBoard also the folder with its event files.
        kind: which of veRL's loggers wrote it.
    """

    path: Path
    kind: str

    @property
    def folder(self) -> Path:
        """That it lies in."""
        return self.path if self.path.is_dir() else self.path.parent

    def read(self) -> Log:
        """The metrics.

        Raises:
            ValueError: no steps in it, or a line that is none of the logger's.
        """
        log = _READERS[self.kind](self.path)
        if not log.steps:
            raise ValueError(f"{self.path}: no steps were logged; the run's output says why")
        return log


def find(path: Path) -> list[LogFile]:
    """The logs that a RUN of the command line stands for.

    Args:
        path: a log, or a folder. A folder's own logs count; one that has none is searched. In
            one folder the file logger is taken before TensorBoard and that before the console,
            so that a run with several loggers is one run; every JSON file is a run.

    Raises:
        ValueError: there is no log; the message says what was looked for.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_file():
        found = list(_of_file(path))
        if not found:
            raise ValueError(f"{path} is no log of veRL; a run is {ALLOWED}")
        return found
    found = _of_folder(path)
    if not found:
        raise ValueError(f"{path}: no log of veRL in this folder or below; a run is {ALLOWED}")
    return found


def console_logs(folder: Path) -> list[Path]:
    """The files that may hold what a run printed."""
    return [file for file in _files(folder) if file.suffix in _CONSOLE_SUFFIXES]


def _of_file(path: Path) -> Iterator[LogFile]:
    if tensorboard.is_event_file(path):
        yield LogFile(path, "TensorBoard")
    elif json_lines.begins_like_one(path) or _is_empty_json(path):
        yield LogFile(path, "file logger")
    elif console.has_steps(path):
        yield LogFile(path, "console")


def _is_empty_json(path: Path) -> bool:
    return path.suffix == ".jsonl" and path.stat().st_size == 0


def _of_folder(folder: Path) -> list[LogFile]:
    files = _files(folder)
    lines = [file for file in files if file.suffix == ".jsonl" and json_lines.begins_like_one(file)]
    if lines:
        return [LogFile(file, "file logger") for file in lines]
    if any(tensorboard.is_event_file(file) for file in files):
        return [LogFile(folder, "TensorBoard")]
    outputs = [file for file in console_logs(folder) if console.has_steps(file)]
    if outputs:
        return [LogFile(file, "console") for file in outputs]
    below = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    return [log for each in below if not each.is_symlink() for log in _of_folder(each)]


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())
