"""A rank that crashes in native code says where it was: its whole launch ends with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forking import ROOT
from tests.support.launch import run_ranks

CRASHING = "tests.support.crashing"


def test_a_started_rank_says_where_it_crashed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"exit status -11(.|\n)*Segmentation fault") as caught:
        run_ranks(CRASHING, 1, tmp_path, arguments=["crash"])
    assert "crashing.py" in str(caught.value)
    assert "in crash" in str(caught.value)


def test_a_forked_rank_says_where_it_crashed(tmp_path: Path) -> None:
    """In a process of its own: a session has one server that forks, with one module imported."""
    ended = subprocess.run(
        [sys.executable, "-m", CRASHING, str(tmp_path), "launch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "exit status -11" in ended.stderr
    assert "Segmentation fault" in ended.stderr
    assert "in crash" in ended.stderr
