"""Which tests run at the same time, with `pytest --numprocesses 2`, and what they do not share."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Their ranks are started once for all tests of the folder.
ONE_LAUNCH = ("distributed", "megatron", "openrlhf")
# One after the other: the socket by which vLLM gets weights has the same name below /tmp in every
# cluster, since Ray counts jobs from 1 in each.
WHOLE_RUNS = {
    f"tests/integration/test_{name}.py"
    for name in (
        *("colocated_run", "end_to_end", "flat_run", "interrupted_demo", "killed_worker"),
        *("megatron_run", "ppo_with_critic", "two_nodes"),
    )
}
# Of those folders, files that need none of their ranks.
WITHOUT_RANKS = {
    f"tests/openrlhf/test_{name}.py"
    for name in ("command", "doctor", "lost_micro_batches", "whole_run")
}
# What takes minutes first, so that one process is not left with it at the end; and ranks, which
# keep every core busy, beside whole runs, which do not.
FIRST = (
    *("distributed", "whole runs", "megatron", "openrlhf", "integration", "examples"),
    *("benchmarks", "release"),
)

# A cluster of its own for every run: Ray otherwise joins one that another test has started.
os.environ["RAY_ADDRESS"] = "local"
# Ray's default of 15 has its workers stand still beside ranks; at 0 they would slow these down,
# since a whole run has more processes than a launch.
os.environ["RAY_worker_niceness"] = "5"  # noqa: SIM112 -- as Ray spells it
# 30 seconds for the start of a cluster are few beside ranks.
os.environ["RAY_gcs_server_port_wait_time_s"] = "120"  # noqa: SIM112 -- as Ray spells it
# How long an example takes depends on what runs beside it.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


class Scheduling(LoadScopeScheduling):
    """What has something in common stays in one process: a file, or more."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        kind = _kind(file)
        together = kind in (*ONE_LAUNCH, "whole runs") and file not in WITHOUT_RANKS
        return kind if together else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """In the order given; pytest-xdist 3.8 does not see marks of groups under pytest 9."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which they start."""
    items.sort(key=lambda item: _place(_kind(item.nodeid.split("::", 1)[0])))


def _kind(file: str) -> str:
    """Of a test file; the folder, for most."""
    return "whole runs" if file in WHOLE_RUNS else Path(file).parts[1]


def _place(kind: str) -> int:
    return FIRST.index(kind) if kind in FIRST else len(FIRST)
