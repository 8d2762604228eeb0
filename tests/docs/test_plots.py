"""docs/plots.md: its commands run, its tables are the command's."""

import re
import shlex
from pathlib import Path

import pytest

from pcr_plugin.cli.main import main
from pcr_plugin.plots.figures.catalogue import draw_all
from pcr_plugin.plots.figures.drawing import Missing
from pcr_plugin.plots.tables.study import Study
from tests.support.plot_logs import (
    configuration,
    write_console,
    write_events,
    write_json_lines,
    write_run,
)

PAGE = (Path(__file__).parents[2] / "docs" / "plots.md").read_text()
COMMANDS = re.findall(r"^pcr (plot .*?)(?: +#.*)?$", PAGE, re.MULTILINE)
STEPS = [(1, {"critic/rewards/mean": 0.5, "critic/score/mean": 0.25, "actor/grad_norm": 1.0})]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """All that the commands name."""
    for name in "abc":
        write_json_lines(tmp_path / f"{name}.jsonl", STEPS)
    write_run(tmp_path / "runs" / "one", STEPS, configuration())
    write_console(tmp_path / "run.log", STEPS, configuration())
    write_events(tmp_path / "tensorboard_log" / "project" / "experiment", STEPS)
    [table] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "runs.yaml").write_text(table)
    return tmp_path


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 6


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs)
    assert main(shlex.split(command)) == 0
    assert (logs / ("figures" if "--out figures" in command else "plots") / "report.html").exists()


def test_table_of_figures_is_the_command_s() -> None:
    drawn = list(draw_all(Study([], None, None)))
    assert all(isinstance(each, Missing) for each in drawn)
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", PAGE[PAGE.index("## Figures") :], re.MULTILINE)
    assert rows[0] == ("figure", "needs")
    assert rows[1:] == [(each.title, each.needs) for each in drawn if isinstance(each, Missing)]
