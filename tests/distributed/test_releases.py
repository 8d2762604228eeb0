"""Nodes with different copies of the package do not train together."""

from pathlib import Path

from pcr_plugin.version import __version__
from tests.support.launch import run_ranks


def test_an_older_copy_on_one_rank_stops_all(tmp_path: Path) -> None:
    run_ranks("tests.distributed.releases", 2, tmp_path)
    for rank in range(2):
        alike, different = (tmp_path / f"{rank}.txt").read_text().split("\n")
        assert alike == "built"
        assert f"different releases of pcr-plugin: 0.0.9, {__version__}. " in different
        assert "Install the same one on every node" in different
