"""veRL's JSONL log, read while it is written."""

from pathlib import Path

from pcr_plugin.plots.logs import json_lines
from pcr_plugin.plots.logs.log import Log

# In the line that veRL writes at the end of a step; others may come before it.
_FINISHED = "training/global_step"


class RunLog(Log):
    """The metrics of a run that may still be under way."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._position = 0

    def update(self) -> list[int]:
        """Read what was appended since the last call.

        Returns:
            The steps that veRL finished meanwhile.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            content = file.read()
        complete = content.rpartition(b"\n")[0]  # veRL may be in the middle of a line
        if not complete:
            return []
        self._position += len(complete) + 1
        records = [json_lines.record(line) for line in complete.splitlines()]
        for step, data in records:
            self.add(step, data)
        return [step for step, data in records if _FINISHED in data]


def read_log(path: Path) -> RunLog:
    """A finished run's log.

    Raises:
        ValueError: there is nothing in it.
    """
    log = RunLog(path)
    log.update()
    if not log.steps:
        raise ValueError(f"{path}: no steps were logged; the run's output says why.")
    return log
