"""`pcr plot`: files, the page, and bad input."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pcr_plugin.cli.main import main
from tests.support.plot_logs import configuration, write_json_lines, write_run
from tests.unit.plots.studies import steps

HOSTILE = '<script>alert(1)</script>"><img src=http://evil.example/x>'


class Page(HTMLParser):
    """Every tag and attribute, and the text between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    return write_json_lines(tmp_path / "stock.jsonl", steps(None, 0.05, 1))


def check_self_contained(page: str) -> Page:
    """No script, and no attribute or style that loads anything."""
    found = Page(page)
    assert {tag for tag, _ in found.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "section", "h1", "h2", "p", "div"),
        *("table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "code"),
        *("ul", "li"),
    }
    for tag, attributes in found.tags:
        allowed = {"img": {"alt", "src"}, "meta": {"charset", "name", "content", "http-equiv"}}
        assert set(attributes) <= allowed.get(tag, {"class", "lang"}), tag
        assert (attributes.get("src") or "data:image/png").startswith("data:image/png")
        assert attributes.get("http-equiv") in (None, "Content-Security-Policy")
    assert not re.search(r"url\(|@import", page)
    return found


def test_report_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rule in (None, "pcr"):
        write_run(tmp_path / f"{rule}", steps(rule, 0.05, 1), configuration(rule))
    out = tmp_path / "new" / "out"
    assert main(["plot", str(tmp_path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "stock: 1 run\n" in said
    assert "left out: 1a." in said
    page = check_self_contained((out / "report.html").read_text())
    assert "2 veRL runs" in page.text
    assert "k3+" not in page.text, "nothing that was not in the configuration"
    assert "actor_rollout_ref.actor.update_rule" in page.text
    assert "matplotlib" in page.text
    names = {path.stem for path in out.glob("*.png")}
    assert names == {path.stem for path in out.glob("*.svg")}
    assert {"progress", "front", "cosines", "gradient_norms", "alphas", "rule"} <= names
    pictures = [tag for tag, _ in page.tags if tag == "img"]
    assert len(pictures) == len(names)
    for path in out.glob("*.svg"):
        loads = re.findall(r'(?:href|src)="([^"]*)"', path.read_text())
        assert all(each.startswith(("#", "data:")) for each in loads)


def test_only_the_folder_is_written_and_an_old_report_is_replaced(
    tmp_path: Path, stock: Path
) -> None:
    out = tmp_path / "out"
    write_run(tmp_path / "pcr", steps("pcr", 0.05, 1), configuration("pcr"))
    assert main(["plot", str(tmp_path / "pcr"), "--out", str(out)]) == 0
    (out / "mine.png").write_bytes(b"mine")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert out / "cosines.png" in before
    assert main(["plot", str(stock), "--out", str(out)]) == 0
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert after < before, "figures that the new report has not are gone, and nothing is new"
    assert out / "cosines.png" not in after
    assert (out / "mine.png").read_bytes() == b"mine"


def test_what_is_not_ours_is_never_replaced(
    tmp_path: Path, stock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("<p>my thesis</p>")
    assert main(["plot", str(stock), "--out", str(tmp_path / "out")]) == 2
    assert "is not of `pcr plot` and stays" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").read_text() == "<p>my thesis</p>"
    assert main(["plot", str(stock), "--out", str(stock)]) == 2
    assert "this is a file" in capsys.readouterr().err


def test_names_from_logs_cannot_break_the_page(tmp_path: Path) -> None:
    values = configuration("pcr")
    values["actor_rollout_ref"]["model"]["path"] = HOSTILE
    values["data"][HOSTILE] = 1
    metric = f"val-core/{HOSTILE}/acc/mean@1"
    for index in (1, 2):
        values["data"][HOSTILE] = index
        write_run(tmp_path / f"runs/{index}", [(1, {metric: 0.5, "x_perplexity": None})], values)
    log = write_json_lines(tmp_path / "a.jsonl", [(1, {metric: 0.5, "actor/grad_norm": 1.0})])
    arguments = [str(tmp_path / "runs"), str(log), "--label", HOSTILE, "--label", "$\\frac{"]
    assert main(["plot", *arguments, "--out", str(tmp_path / "out")]) == 0
    content = (tmp_path / "out" / "report.html").read_text()
    page = check_self_contained(content)
    assert HOSTILE not in content
    assert HOSTILE in page.text
    assert "NaN or infinite" in page.text


def test_what_else_differs_is_pointed_out(tmp_path: Path) -> None:
    """A comparison of two rules that were not trained alike."""
    for rule, size in ((None, 8), ("pcr", 16)):
        values = configuration(rule)
        values["data"]["train_batch_size"] = size
        write_run(tmp_path / str(rule), steps(rule, 0.05, 1), values)
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "also differ in data.train_batch_size, which their names do not show" in page.text


def test_copies_of_a_run_are_pointed_out(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, steps("pcr", 0.05, 1), configuration("pcr"))
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "2 runs with the same or unknown seeds" in page.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no runs"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["stock.jsonl", "--label", "a", "--label", "b"], "--label is given 2 times for 1 runs"),
        (["stock.jsonl", "--score", "val"], "--score val: no run has it; logged are actor/entropy"),
        (["stock.jsonl", "--perplexity", "ppl"], "--perplexity ppl: no run has it"),
        (["--runs", "nowhere.yaml"], "--runs nowhere.yaml: no such file"),
        (["bad.jsonl"], "bad.jsonl, line 2"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path,
    stock: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"step": 1, "data": {}}\nnonsense\n')
    before = set(tmp_path.iterdir())
    assert main(["plot", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pcr plot: ")
    assert message in said
    assert said.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_matplotlib_missing_names_the_extra(
    tmp_path: Path,
    stock: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", str(stock), "--out", str(tmp_path / "out")]) == 1
    assert 'pip install "pcr-plugin[plot]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_score_and_perplexity_can_be_chosen(tmp_path: Path) -> None:
    data = {"val-core/a/acc/mean@1": 0.1, "val-core/b/acc/mean@1": 0.2, "ppl": 3.0}
    log = write_json_lines(tmp_path / "a.jsonl", [(1, data)])
    chosen = ["--score", "val-core/b/acc/mean@1", "--perplexity", "ppl"]
    assert main(["plot", str(log), *chosen, "--out", str(tmp_path / "out")]) == 0
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert "Score: val-core/b/acc/mean@1. Perplexity: ppl;" in text


def test_help_says_what_a_run_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["plot", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for words in ("RUN", "TensorBoard", "JSON lines", "--label", "--runs", "95 %", "report.html"):
        assert words in said
