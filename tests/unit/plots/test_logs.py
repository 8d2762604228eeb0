"""The same numbers from all three of veRL's loggers."""

import re
import sys
from math import inf, isnan, nan
from pathlib import Path

import numpy
import pytest

from pcr_plugin.plots.logs import console, json_lines
from pcr_plugin.plots.logs.find import LogFile, find
from tests.support.plot_logs import configuration, write_console, write_events, write_json_lines

SOURCE = 'openai/gsm8k <b> "x" - y:1'  # a data source's name, which stands in metrics
STEPS = [
    (0, {f"val-core/{SOURCE}/acc/mean@4": 0.25}),
    (1, {"actor/lr": 1e-06, "actor/grad_norm": 2.5, "critic/score/min": -0.5, "count": 3}),
    (2, {"actor/lr": numpy.float64(1e-06), "actor/grad_norm": nan, "critic/score/min": 1e20}),
    (3, {"actor/grad_norm": inf, "actor/kl_loss": numpy.float32(0.125)}),
]


def write(kind: str, folder: Path) -> Path:
    if kind == "file logger":
        return write_json_lines(folder / "log.jsonl", STEPS)
    if kind == "TensorBoard":
        return write_events(folder / "events", STEPS)
    return write_console(folder / "run.log", STEPS, configuration())


@pytest.mark.parametrize("kind", ["file logger", "TensorBoard", "console"])
def test_every_format_gives_the_numbers_that_were_logged(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    [found] = find(path)
    assert found == LogFile(path, kind)
    log = found.read()
    for step, data in STEPS:
        assert set(log.steps[step]) == set(data), step
        for key, value in data.items():
            got = log.steps[step][key]
            if value in (inf,) or value != value:
                assert isnan(got) or got == inf
            else:  # TensorBoard keeps 32 bits
                assert got == pytest.approx(float(value), rel=1e-6 if kind == "TensorBoard" else 0)
    assert log.finite("actor/grad_norm") == {1: 2.5}
    assert log.not_finite() == 2
    assert log.series("actor/kl_loss") == ([3], [0.125])
    assert set(log.steps) == {0, 1, 2, 3}


def test_parts_of_one_step_are_merged(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [(4, {"a": 1.0, "b": 1.0}), (4, {"b": 2.0})])
    assert json_lines.read(path).steps == {4: {"a": 1.0, "b": 2.0}}


def test_a_run_that_was_killed_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [(1, {"a": 1.0})])
    path.write_bytes(path.read_bytes() + b'{"step": 2, "da')
    assert json_lines.read(path).steps == {1: {"a": 1.0}}


def test_what_is_no_number_is_left_out() -> None:
    line = '{"step": 1, "data": {"a": "text", "b": [1], "c": {"d": 1}, "e": true, "f": 2}}'
    assert json_lines.record(line) == (1, {"e": 1.0, "f": 2.0})


def test_numbers_too_large_for_a_float() -> None:
    _, data = json_lines.record('{"step": 1, "data": {"a": 1e999, "b": 1%s}}' % ("0" * 400))
    assert data["a"] == inf
    assert isnan(data["b"])


@pytest.mark.parametrize(
    "line",
    ["text", "[1, 2]", '{"step": "1", "data": {}}', '{"step": 1}', "[" * 100_000, b"\xff\xfe"],
)
def test_a_foreign_line_is_an_error_with_its_number(line: str | bytes, tmp_path: Path) -> None:
    raw = line.encode() if isinstance(line, str) else line
    (tmp_path / "a.jsonl").write_bytes(b'{"step": 1, "data": {}}\n' + raw + b"\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: .*file logger"):
        json_lines.read(tmp_path / "a.jsonl")


def test_printed_configuration_is_read_and_never_executed(tmp_path: Path) -> None:
    values = configuration("pcgrad", beta=0.5)
    path = write_console(tmp_path / "run.log", STEPS, values)
    assert console.printed_configuration(path) == values
    mark = tmp_path / "executed"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    path.write_text(f"{{'actor_rollout_ref': {code}}}\nstep:1 - a:1.0\n")
    assert console.printed_configuration(path) is None
    assert not mark.exists()


def test_printed_configuration_that_ray_shows_in_pieces(tmp_path: Path) -> None:
    """As seen in real runs: `'preset': 'robust'` and the comma after it on two lines."""
    values = configuration() | {"odd": "it's \\ [not) 'closed"}
    path = write_console(tmp_path / "run.log", STEPS, values)
    whole = path.read_text()
    head = "\n\x1b[36m(TaskRunnerV1 pid=28020)\x1b[0m "
    for place in re.finditer(r"',$|weight_|1e-06|closed", whole, re.MULTILINE):
        cut = place.start() + 1
        path.write_text(whole[:cut] + "\n(WorkerDict pid=7) between" + head + whole[cut:])
        assert console.printed_configuration(path) == values


def test_step_that_ray_shows_in_two_parts(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    head = "(TaskRunnerV1 pid=1) "
    line = "step:3 - actor/lr:1e-06 - val-core/a b/acc/mean@4:0.125 - n:np.float64(2.5) - last:17"
    wanted = {"actor/lr": 1e-6, "val-core/a b/acc/mean@4": 0.125, "n": 2.5, "last": 17.0}
    for cut in range(len("step:3 - a"), len(line)):
        parts = [line[:cut], line[cut:], "Done.", "step:4 - last:1", "Final: 3", "done:"]
        path.write_text("(other pid=2) step\n".join(f"{head}{part}\n" for part in parts))
        read = console.read(path).steps
        assert read[4] == {"last": 1.0}
        assert read[3] == wanted, line[cut:]


def test_console_lines_that_only_look_like_steps(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(
        "training/global_step:7 - a:1.0\nmystep:3 - a:2.0\nstep:9 done\n"
        "step:2 - a:1.0 - b:1.2.3 - c:-3e-05\n"
    )
    log = console.read(path)
    assert set(log.steps) == {2}
    assert log.steps[2] == {"a": 1.0, "c": -3e-05}


def test_folder_with_several_loggers_is_one_run(tmp_path: Path) -> None:
    for kind in ("console", "TensorBoard", "file logger"):
        write(kind, tmp_path)
    assert [found.kind for found in find(tmp_path)] == ["file logger"]
    (tmp_path / "log.jsonl").unlink()
    assert [found.kind for found in find(tmp_path)] == ["console"]  # events lie in a folder below
    (tmp_path / "run.log").unlink()
    assert find(tmp_path) == [LogFile(tmp_path / "events", "TensorBoard")]
    [file] = (tmp_path / "events").iterdir()
    assert repr(find(file)[0].read().steps) == repr(find(tmp_path)[0].read().steps)


def test_folder_of_runs_is_searched(tmp_path: Path) -> None:
    for name in ("b/one.jsonl", "b/two.jsonl", "a/deep/log.jsonl"):
        write_json_lines(tmp_path / name, STEPS)
    # veRL's dumps of validation samples are JSON lines, too
    (tmp_path / "a" / "dump.jsonl").write_text('{"input": "x", "step": 1}\n')
    names = [str(found.path.relative_to(tmp_path)) for found in find(tmp_path)]
    assert names == ["a/deep/log.jsonl", "b/one.jsonl", "b/two.jsonl"]


def test_what_is_no_log_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no such file"):
        find(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no log of veRL in this folder.*JSON lines.*TensorBoard"):
        find(tmp_path)
    (tmp_path / "a.png").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"a\.png is no log of veRL.*step:1"):
        find(tmp_path / "a.png")
    (tmp_path / "a.jsonl").touch()
    [empty] = find(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="no steps were logged"):
        empty.read()


def test_tensorboard_missing_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("TensorBoard", tmp_path)
    name = "tensorboard.backend.event_processing.event_accumulator"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pcr-plugin\[plot\]"):
        find(path)[0].read()
