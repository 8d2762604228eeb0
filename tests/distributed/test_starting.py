"""What ends a run on every rank before its first step."""

import json
import re
import socket

import pytest

from pcr_plugin.version import __version__
from tests.support.launch import run_ranks

HOST = re.escape(socket.gethostname())


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What each of two ranks was told."""
    folder = tmp_path_factory.mktemp("starting")
    run_ranks("tests.distributed.starting", 2, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_ranks_with_one_copy_train(said: list[dict[str, str]]) -> None:
    assert [each["alike"] for each in said] == ["built", "built"]


@pytest.mark.parametrize(("what", "release"), [("older", "0.0.9"), ("changed", __version__)])
def test_another_copy_on_one_rank_stops_all(
    what: str, release: str, said: list[dict[str, str]]
) -> None:
    """Of another release, or of the same one with a line more in a file."""
    assert said[0][what] == said[1][what]
    copies = rf"{re.escape(__version__)} \[\w{{8}}\] \(rank 0 on {HOST}\)"
    other = rf"{re.escape(release)} \[\w{{8}}\] \(rank 1 on {HOST}\)"
    found = re.search(r"different copies of pcr-plugin: (.*?)\. Install the same", said[0][what])
    assert found is not None, said[0][what]
    assert re.fullmatch(rf"{copies}; {other}|{other}; {copies}", found[1])
    first, second = re.findall(r"\[(\w+)\]", found[1])
    assert (first == second) == (what == "older")


def test_a_model_without_an_mlp_by_that_name_is_refused(said: list[dict[str, str]]) -> None:
    """OPT's layers have `fc1` and `fc2` of their own."""
    for each in said:
        assert each["opt"].startswith("pcr.scope='mlp' matches no trainable parameter; they are: ")
        assert "model.decoder.layers.N.fc1.weight" in each["opt"]
