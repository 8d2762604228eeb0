"""The moving averages on disk, beside the host's checkpoint. Needs no veRL."""

import json
import logging
from pathlib import Path

import pytest
import torch

from pcr_plugin.statistics import VarianceAverage
from pcr_plugin.verl import checkpoint

STEP = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
NAMES = ["0.mlp", "1.mlp"]
GOOD = torch.tensor([True, True])


def averaged() -> VarianceAverage:
    average = VarianceAverage(0.9)
    average.update(NAMES, STEP, GOOD)
    average.update(NAMES, 7 * STEP, GOOD)
    return average


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    average, restored = averaged(), VarianceAverage(0.9)
    checkpoint.save(average, str(tmp_path / "not there yet"))
    checkpoint.load(restored, str(tmp_path / "not there yet"))
    assert restored.state_dict() == average.state_dict()
    expected = average.update(NAMES, STEP, GOOD)
    torch.testing.assert_close(restored.update(NAMES, STEP, GOOD), expected, rtol=0, atol=0)


def test_the_file_is_readable_by_people(tmp_path: Path) -> None:
    checkpoint.save(averaged(), str(tmp_path))
    content = json.loads((tmp_path / "pcr_state.json").read_text())
    assert content["version"] == 1
    assert set(content["average"]["sums"]) == set(NAMES)


def test_a_stock_checkpoint_starts_the_averages_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    average = VarianceAverage(0.9)
    with caplog.at_level(logging.WARNING, logger="pcr_plugin"):
        checkpoint.load(average, str(tmp_path))
    assert "pcr_state.json" in caplog.text
    assert average.state_dict()["sums"] == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"average": null}',
        '{"average": []}',
        '{"average": {}}',
        '{"average": {"sums": {}}}',
        '{"average": {"sums": [], "weights": []}}',
        '{"average": {"sums": {"a": 1}, "weights": {}}}',
        '{"average": {"sums": {"a": [1]}, "weights": {}}}',
    ],
)
def test_a_file_that_is_no_state_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "pcr_state.json").write_text(content)
    with pytest.raises(ValueError) as caught:
        checkpoint.load(VarianceAverage(0.9), str(tmp_path))
    assert "pcr_state.json" in str(caught.value)
    assert "delete it" in str(caught.value)
