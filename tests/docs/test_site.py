"""The site builds without a warning and fetches nothing; its pictures show what the rule does."""

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from pcr_plugin.rules import decide
from tests.support.copying import copy_source

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
# What a browser fetches by itself while it shows a page.
FETCHED = r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`make docs` of a tree, to another folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(
        command, cwd=source, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = build(ROOT, place)
    assert done.returncode == 0, done.stderr
    return place


def test_every_page_is_built(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {path.parent.name for path in site.glob("*/index.html")} >= pages
    assert "What healthy looks like" in (site / "metrics" / "index.html").read_text()
    assert "0.1.0" in (site / "changelog" / "index.html").read_text()
    assert 'id="pcr_plugin.rules.decide"' in (site / "api" / "index.html").read_text()


def test_a_page_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        found = re.findall(FETCHED, page.read_text())
        assert not [tag for tag in found if "rel=canonical" not in tag], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url|@import)\s*\(?[\"']?(https?:)?//", sheet.read_text()), sheet


def test_a_link_an_anchor_or_a_page_that_is_lost_fails_the_build(tmp_path: Path) -> None:
    for name in ("docs", "pcr_plugin"):
        copy_source(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    lost = "[a](nowhere.md) [b](faq.md#no-such-question)\n"
    (tmp_path / "docs" / "lost.md").write_text(lost)
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    for words in ("'nowhere.md'", "'#no-such-question'", 'not included in the "nav"'):
        assert words in done.stderr.replace("’", "'"), done.stderr


def vectors(group: str) -> dict[str, torch.Tensor]:
    """The arrows of one half of the picture, by name, with y upwards."""
    tree = ElementTree.parse(ROOT / "docs" / "assets" / "projection.svg")
    [half] = [each for each in tree.iter(f"{SVG}g") if each.get("id") == group]
    found = {"": torch.tensor([float(half.get("data-alpha", 0)), float(half.get("data-beta", 0))])}
    for line in half.iter(f"{SVG}line"):
        if name := line.get("id"):
            x1, y1, x2, y2 = (float(line.get(key, "nan")) for key in ("x1", "y1", "x2", "y2"))
            found[name.removeprefix(f"{group}-")] = torch.tensor([x2 - x1, y1 - y2])
    return found


@pytest.mark.parametrize(
    ("group", "rule", "arrow"),
    [("agreement", "soft", "g"), ("conflict", "soft", "g"), ("conflict", "pcgrad", "hard")],
)
def test_arrows_of_the_picture_are_the_rule_s(group: str, rule: str, arrow: str) -> None:
    drawn = vectors(group)
    alpha, beta = drawn[""].tolist()
    pair = torch.stack([drawn["p"], drawn["s"]]).double()
    weights = decide(
        rule, (pair @ pair.T)[None], torch.zeros(1, 2), beta, fixed_alpha=alpha
    ).weights[0]
    # Drawn to a hundredth of a unit.
    torch.testing.assert_close(weights.double() @ pair, drawn[arrow].double(), atol=0.02, rtol=0)
