"""The report of `pcr plot` in a real browser: what it shows, and that it asks nobody for anything.

`tests/unit/plots/test_command.py` asks the page's text the same, without a browser.
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from pcr_plugin.cli.main import main
from tests.support.plot_logs import configuration, write_run
from tests.unit.plots.studies import steps

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in _NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"none of {', '.join(_NAMES)}; .ci/run installs the first"
)
# Its own requests, which are for news of itself, are told from the page's by who asks.
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
)
# After the page has its pictures, the title is their widths in pixels.
_WIDTHS = (
    "<script>addEventListener('load', () => {"
    "document.title = Array.from(document.images, each => each.naturalWidth).join()"
    "})</script>"
)


@dataclass(frozen=True)
class Opened:
    """A page in the browser.

    Attributes:
        title: after it was loaded.
        requests: addresses that it asked for, beside its own.
    """

    title: str
    requests: set[str]


def opened(page: Path, folder: Path) -> Opened:
    """Open a page without a window.

    Args:
        page: a file.
        folder: for what the browser writes.
    """
    assert BROWSER is not None
    log, profile = folder / "network.json", folder / "profile"
    done = subprocess.run(
        [
            *(BROWSER, *_QUIET, f"--user-data-dir={profile}", f"--log-net-log={log}"),
            *("--virtual-time-budget=5000", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stdout[:2000]
    asked = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    found = {
        each["url"]
        for each in asked
        if "url" in each and str(each.get("network_isolation_key")).startswith("file:")
    }
    return Opened(title[1], found - {page.as_uri()})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two runs."""
    runs, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("report")
    for rule in (None, "pcr"):
        write_run(runs / f"{rule}", steps(rule, 0.05, 1), configuration(rule))
    assert main(["plot", str(runs), "--out", str(out)]) == 0
    return out / "report.html"


def test_the_report_asks_nobody(report: Path, tmp_path: Path) -> None:
    page = opened(report, tmp_path)
    assert page.requests == set()
    assert page.title == "2 veRL runs"


def test_what_a_page_asks_for_is_seen(tmp_path: Path) -> None:
    """The test above would fail if there were anything."""
    address = "http://192.0.2.1/picture.png"  # reserved: nobody is there
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><title>a page</title><img src='{address}'>")
    assert opened(page, tmp_path).requests == {address}


def test_every_picture_is_shown(report: Path, tmp_path: Path) -> None:
    """By a script, which the report itself forbids."""
    text = report.read_text()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)
    assert policy is not None
    page = tmp_path / "page.html"
    page.write_text(text.replace(policy[0], _WIDTHS))
    widths = [int(each) for each in opened(page, tmp_path).title.split(",")]
    assert len(widths) == text.count("<img ")
    assert min(widths) > 100
    # As it is, the report runs no script.
    page.write_text(text.replace(policy[0], policy[0] + _WIDTHS))
    assert opened(page, tmp_path).title == "2 veRL runs"
