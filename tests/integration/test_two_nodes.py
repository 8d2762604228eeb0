"""Two Ray nodes, one of which has no plugin, another one, half of one, or does not answer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pcr_plugin.verl_cpu.overrides import environment
from pcr_plugin.version import __version__
from tests.integration.nodes import OTHER, ROOT
from tests.integration.small_run import stop_group

TARGET = "pcr_plugin.verl.actor_config.PCRFSDPActorConfig"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After everything has happened on the cluster."""
    made = tmp_path_factory.mktemp("nodes")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.two_nodes", str(made)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=1500)
    finally:
        stop_group(process.pid)
    (made / "output.txt").write_text(output)
    assert process.returncode == 0, output[-6000:]
    return made


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    everything: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return everything


def shown(error: dict[str, Any]) -> str:
    """What a user reads, without the line breaks that Ray and Hydra put in."""
    return " ".join(str(error["error"]).split())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", [f"Error locating target '{TARGET}'", "No module named 'pcr_plugin'"]),
        ("broken", ["refusals.py", "pcr-plugin cannot work with veRL", "`pcr doctor`"]),
    ],
)
def test_a_node_without_the_plugin_is_named(
    name: str, words: list[str], found: dict[str, Any]
) -> None:
    """By its address; and the run ends while the workers are built."""
    message = shown(found[name])
    assert "actor_init_model" in message
    assert f"ip={OTHER}" in message
    for each in words:
        assert each in message


def test_the_remedy_is_in_the_message(found: dict[str, Any]) -> None:
    assert "Are you sure that module 'pcr_plugin' is installed?" in shown(found["missing"])
    broken = shown(found["broken"])
    assert "in the environment of the driver and of every worker" in broken
    assert "it would train plain GRPO" in broken


def test_another_release_on_one_node_is_named(found: dict[str, Any]) -> None:
    message = shown(found["other"])
    assert "The actor's workers have different copies of pcr-plugin" in message
    assert f"{__version__} [" in message
    assert "0.0.9 [" in message
    assert "(rank 1 on " in message.split("0.0.9 [")[1]
    assert "Install the same one on every node" in message


def test_a_node_that_does_not_answer_ends_the_run(found: dict[str, Any]) -> None:
    """Of itself: the other rank still waits in a collective, for half an hour by default."""
    lost = found["lost"]
    assert lost["kind"] == "ActorDiedError"
    assert "The actor died because its node has died" in shown(lost)
    assert f"ip: {OTHER}" in shown(lost)
    assert lost["after"] < 60


def test_the_run_goes_on_from_the_checkpoint_as_if_nothing_had_been(
    folder: Path, found: dict[str, Any]
) -> None:
    """On another node: weights, averages and metrics of the step are those that were."""
    assert found["resumed"]["metrics"] == found["lost"]["metrics"]
    assert found["lost"]["metrics"]["pcr/conflict_rate"] > 0  # where the averages matter
    first, second, again = (folder / name for name in ("first", "second", "again"))

    def weights(saved: Path) -> bytes:
        return (saved / "huggingface" / "model.safetensors").read_bytes()

    def state(saved: Path) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((saved / "pcr_state.json").read_text())
        return {name: content[name] for name in ("steps", "average")}

    assert weights(again) == weights(second) != weights(first)
    assert state(again) == state(second) != state(first)
    assert state(again)["steps"] == 4


def test_a_full_disk_of_one_node_ends_the_run(folder: Path, found: dict[str, Any]) -> None:
    """And nothing of ours says that the checkpoint is whole."""
    full = found["resumed"]["full"]
    assert "actor_save_checkpoint" in shown(full)
    assert f"ip={OTHER}" in shown(full)
    assert full["after"] < 60
    assert not (folder / "full" / "pcr_state.json").exists()
