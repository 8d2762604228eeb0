"""What a run of `small_run` with the preset `robust` has saved of its actor."""

import json
import math
from pathlib import Path

import pytest

from tests.integration.small_run import checkpoints

LAYERS = 2
DECAY = 0.9  # of the preset


def actor(folder: Path, training_steps: int) -> Path:
    """veRL's checkpoint of the actor after so many training steps."""
    return checkpoints(folder) / f"global_step_{training_steps}" / "actor"


def check_average(folder: Path, training_steps: int, *, each: int) -> None:
    """The saved moving averages have seen every optimizer step but the very first.

    That step's policy is the reference, whose stability gradient is zero: it does not enter. A
    skipped or a doubled step would give another debiasing weight.

    Args:
        folder: of the run.
        training_steps: after which it was saved.
        each: optimizer steps in each of them.
    """
    saved = json.loads((actor(folder, training_steps) / "pcr_state.json").read_text())["average"]
    assert sorted(name.partition(".layers.")[2] for name in saved["sums"]) == [
        f"{layer}.mlp" for layer in range(LAYERS)
    ]
    for plasticity, stability, weight in saved["sums"].values():
        entered = each * training_steps - 1
        assert weight == pytest.approx(1 - DECAY**entered, rel=1e-12)
        assert all(0 < value < math.inf for value in (plasticity, stability))
