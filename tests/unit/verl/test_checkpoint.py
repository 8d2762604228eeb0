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


def restore(average: VarianceAverage, folder: Path) -> int:
    return checkpoint.load(average, checkpoint.read(str(folder)), str(folder))


def averaged() -> VarianceAverage:
    average = VarianceAverage(0.9)
    average.update(NAMES, STEP, GOOD)
    average.update(NAMES, 7 * STEP, GOOD)
    return average


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    average, restored = averaged(), VarianceAverage(0.9)
    checkpoint.save(average, 12, str(tmp_path / "not there yet"))
    assert restore(restored, tmp_path / "not there yet") == 12
    assert restored.state_dict() == average.state_dict()
    expected = average.update(NAMES, STEP, GOOD)
    torch.testing.assert_close(restored.update(NAMES, STEP, GOOD), expected, rtol=0, atol=0)


def test_the_file_is_readable_by_people(tmp_path: Path) -> None:
    checkpoint.save(averaged(), 7, str(tmp_path))
    content = json.loads((tmp_path / "pcr_state.json").read_text())
    assert content["version"] == 1
    assert set(content["average"]["sums"]) == set(NAMES)


def test_a_stock_checkpoint_starts_the_averages_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    average = VarianceAverage(0.9)
    with caplog.at_level(logging.WARNING, logger="pcr_plugin"):
        assert restore(average, tmp_path) == 0
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
        '{"average": {"version": 1, "members": {}}}',
        '{"average": {"version": 1, "members": {}, "sums": []}}',
        '{"average": {"version": 1, "members": {}, "sums": {"a": 1}}}',
        '{"average": {"version": 1, "members": {}, "sums": {"a": [1, 2]}}}',
    ],
)
def test_a_file_that_is_no_state_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "pcr_state.json").write_text(content)
    with pytest.raises(ValueError) as caught:
        restore(VarianceAverage(0.9), tmp_path)
    assert "pcr_state.json" in str(caught.value)
    assert "delete it" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["extra_state_world_size_2_rank_0.pt", "extra/dist_ckpt/__0_0.distcp"]
)
def test_a_file_left_by_an_earlier_checkpoint_is_not_taken(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Off and on again: the same step's folder is written anew, without our file."""
    extra = tmp_path / name
    extra.parent.mkdir(parents=True, exist_ok=True)
    extra.write_bytes(b"with the rule")
    checkpoint.save(averaged(), 7, str(tmp_path))
    assert checkpoint.read(str(tmp_path)) is not None
    extra.write_bytes(b"without it")
    restored = VarianceAverage(0.9)
    restore(restored, tmp_path)
    assert restored.state_dict()["sums"] == {}
    assert "written later" in caplog.text


def test_a_state_written_before_the_checkpoint_is_complete_is_taken(tmp_path: Path) -> None:
    """With `async_save` veRL writes its part later."""
    checkpoint.save(averaged(), 7, str(tmp_path), complete=False)
    (tmp_path / "extra" / "dist_ckpt").mkdir(parents=True)
    (tmp_path / "extra" / "dist_ckpt" / "__0_0.distcp").write_bytes(b"later")
    restored = VarianceAverage(0.9)
    restore(restored, tmp_path)
    assert restored.state_dict() == averaged().state_dict()


SIZES = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 2}


def test_other_model_parallel_sizes_are_refused_by_name(tmp_path: Path) -> None:
    written = json.dumps(SIZES | {"tensor_model_parallel_size": 4})
    (tmp_path / "transformer_config.json").write_text(written)
    with pytest.raises(ValueError, match="tensor_model_parallel_size=4 and this run has 1"):
        checkpoint.check_model_parallel(str(tmp_path), SIZES)


@pytest.mark.parametrize("written", [SIZES, {}, None])
def test_equal_sizes_or_unknown_ones_are_accepted(
    written: dict[str, int] | None, tmp_path: Path
) -> None:
    if written is not None:
        (tmp_path / "transformer_config.json").write_text(json.dumps(written))
    checkpoint.check_model_parallel(str(tmp_path), SIZES)


def test_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    checkpoint.save(averaged(), 7, str(tmp_path))
    before = (tmp_path / "pcr_state.json").read_text()
    unfinished = tmp_path / "pcr_state.tmp"
    unfinished.symlink_to("/dev/full")  # Linux's own disk without space
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save(VarianceAverage(0.9), 9, str(tmp_path))
    assert (tmp_path / "pcr_state.json").read_text() == before
    unfinished.unlink()
    checkpoint.save(VarianceAverage(0.9), 9, str(tmp_path))
    assert json.loads((tmp_path / "pcr_state.json").read_text())["steps"] == 9


def test_a_save_that_was_cut_off_is_in_nobody_s_way(tmp_path: Path) -> None:
    """What a killed run left of it."""
    (tmp_path / "pcr_state.tmp").write_text('{"version": 1, "belo')
    assert checkpoint.read(str(tmp_path)) is None
    checkpoint.save(averaged(), 7, str(tmp_path))
    assert restore(VarianceAverage(0.9), tmp_path) == 7
    assert not (tmp_path / "pcr_state.tmp").exists()


@pytest.mark.parametrize("name", ["model_world_size_4_rank_0.pt", "optim_world_size_4_rank_0.pt"])
def test_another_number_of_ranks_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "x_world_size_y_rank_0.pt").touch()  # somebody else's
    checkpoint.check_ranks(str(tmp_path), 4)
    with pytest.raises(ValueError, match="written by 4 ranks and this run has 2"):
        checkpoint.check_ranks(str(tmp_path), 2)
    (tmp_path / "model_world_size_2_rank_0.pt").touch()
    checkpoint.check_ranks(str(tmp_path), 2)
