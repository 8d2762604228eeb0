"""Which tests run at the same time, with `pytest --numprocesses 2`, and what they do not share."""

import os
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
# Their ranks are started once for all tests of the folder.
ONE_LAUNCH = ("distributed", "megatron", "openrlhf")
# What takes minutes first, so that one process is not left with it at the end; and ranks, which
# keep every core busy, beside whole runs, which do not.
FIRST = ("distributed", "integration", "megatron", "openrlhf", "examples", "benchmarks", "release")

# A cluster of its own for every run: Ray otherwise joins one that another test has started.
os.environ["RAY_ADDRESS"] = "local"
# Ray's default of 15 has its workers stand still beside ranks; at 0 they would slow these down,
# since a whole run has more processes than a launch.
os.environ["RAY_worker_niceness"] = "5"  # noqa: SIM112 -- as Ray spells it


class Scheduling(LoadScopeScheduling):
    """What has fixtures in common stays in one process: a file, or a whole folder."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        folder = Path(file).parts[1]
        return folder if folder in ONE_LAUNCH else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """In the order given; pytest-xdist 3.8 does not see marks of groups under pytest 9."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which they start."""
    items.sort(key=lambda item: _place(item.path.relative_to(HERE).parts[0]))


def _place(folder: str) -> int:
    return FIRST.index(folder) if folder in FIRST else len(FIRST)
