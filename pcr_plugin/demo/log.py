"""veRL's JSONL log, read while it is written."""

import json
from collections import defaultdict
from pathlib import Path

# In the line that veRL writes at the end of a step; others may come before it.
_FINISHED = "training/global_step"


class RunLog:
    """The metrics of a run by step.

    Attributes:
        steps: step -> metric -> value; several lines of one step are merged.
    """

    def __init__(self, path: Path) -> None:
        self.steps: dict[int, dict[str, float]] = defaultdict(dict)
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
        records = [json.loads(line) for line in complete.splitlines()]
        for record in records:
            self.steps[record["step"]].update(record["data"])
        return [record["step"] for record in records if _FINISHED in record["data"]]

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """The steps that have a metric, and its values there."""
        pairs = sorted((step, data[metric]) for step, data in self.steps.items() if metric in data)
        return [step for step, _ in pairs], [value for _, value in pairs]


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
