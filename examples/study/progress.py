"""What a sweep shows: a line per run, with the time that is left."""

import sys
import time
from typing import TextIO


class Progress:
    """Lines on a stream.

    Args:
        stream: standard error if none is given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._all = self._done = self._to_do = self._failed = 0
        self._began = 0.0

    def say(self, line: str) -> None:
        """Show a line."""
        self._stream.write(line + "\n")
        self._stream.flush()

    def begin(self, runs: int, to_do: int, workers: int) -> None:
        """A sweep starts.

        Args:
            runs: in all.
            to_do: that are not finished.
            workers: processes at a time.
        """
        self._all, self._to_do = runs, to_do
        self._done = self._failed = 0
        self._began = time.monotonic()
        self.say(f"{runs} runs, {runs - to_do} finished before, {workers} at a time")

    def finished(self, name: str, seconds: float) -> None:
        """A run ended well.

        Args:
            name: of the run.
            seconds: that it took.
        """
        self._done += 1
        self._line(f"{name}: {seconds:.0f} s")

    def failed(self, name: str, reason: str) -> None:
        """A run did not.

        Args:
            name: of the run.
            reason: one line.
        """
        self._done += 1
        self._failed += 1
        self._line(f"{name}: FAILED, {reason}")

    def _line(self, text: str) -> None:
        left = self._to_do - self._done
        each = (time.monotonic() - self._began) / self._done
        failed = f", {self._failed} failed" if self._failed else ""
        number = self._all - left
        time_left = f", {duration(left * each)} left" if left else ""
        self.say(f"[{number:>{len(str(self._all))}}/{self._all}{failed}{time_left}] {text}")


def duration(seconds: float) -> str:
    """Seconds in words, such as `1 h 05 min`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
