"""From ranges in a trace to parts that add up."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.breakdown import breakdown


def event(name: str, start: float, end: float) -> Any:
    """As in a profile, in microseconds; times of these tests are seconds."""
    return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start * 1e6, end=end * 1e6))


def test_parts_add_up_and_the_innermost_range_counts() -> None:
    events = [
        event("benchmark/update", 0, 20),
        event("aten::mm", 1, 2),
        event("benchmark/s", 1, 9),
        event("benchmark/forward", 1, 4),
        event("benchmark/layer", 2, 3),
        event("benchmark/backward", 4, 9),
        event("benchmark/layer", 5, 7),
        event("benchmark/statistics", 8, 8.5),
        event("benchmark/p", 9, 15),
        event("benchmark/forward", 9, 10),
        event("benchmark/backward", 10, 15),
        event("benchmark/statistics", 15, 17),
        event("benchmark/communication", 16, 16.5),
        event("benchmark/combine", 17, 18),
        event("benchmark/clip and step", 18, 19.5),
    ]
    assert breakdown(events) == pytest.approx(
        {
            "rest": 1.5,
            "forward": 4.0,
            "recomputation": 2.0,
            "backward of s": 2.5,
            "backward of p": 5.0,
            "statistics": 2.0,
            "communication": 0.5,
            "combine": 1.0,
            "clip and step": 1.5,
        }
    )


def test_recomputation_in_another_thread_is_found_by_its_time() -> None:
    """On a GPU autograd has a thread of its own; the one that called it waits."""
    events = [
        event("benchmark/layer", 2, 3),  # not in the order in which they began
        event("benchmark/backward", 1, 4),
        event("benchmark/update", 0, 5),
    ]
    assert breakdown(events) == pytest.approx({"recomputation": 1, "backward": 2, "rest": 2})


def test_backward_without_an_objective_is_the_host_s() -> None:
    events = [event("benchmark/update", 0, 3), event("benchmark/backward", 1, 3)]
    assert breakdown(events) == pytest.approx({"backward": 2, "rest": 1})
