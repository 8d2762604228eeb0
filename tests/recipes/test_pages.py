"""The pages of the recipes: each is in the table, and says what it must."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from recipes.data.prepare import tables
from tests.recipes.commands import ECHO, FOLDER, SCRIPTS, command_of, with_programs

PAGE = (FOLDER / "README.md").read_text()
ROWS = re.findall(r"^\| \[(\w+)\]\((\w+)/README\.md\) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)

BLOCKS = [
    (page.relative_to(FOLDER).as_posix(), block)
    for page in sorted(FOLDER.rglob("*.md"))
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
]


def test_table_has_all_recipes() -> None:
    assert [name for name, _, _, _ in ROWS] == [folder for _, folder, _, _ in ROWS]
    assert sorted(name for name, _, _, _ in ROWS) == sorted(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_page_of_a_recipe(name: str) -> None:
    page = (SCRIPTS[name].parent / "README.md").read_text()
    for words in ("## Claim", "## Hardware", "## Result", "Not run by us.", "## Run", "run.sh"):
        assert words in page, words
    assert f"veRL {version('verl')}" in page
    assert f"`UPDATE_RULE=null bash recipes/{name}/run.sh`" in page


@pytest.mark.parametrize(("name", "gpus"), [(name, gpus) for name, _, _, gpus in ROWS])
def test_number_of_gpus_is_the_script_s(name: str, gpus: str, tmp_path: Path) -> None:
    overrides = dict(o.split("=", 1) for o in command_of(SCRIPTS[name], tmp_path).overrides)
    nodes, each = overrides["trainer.nnodes"], overrides["trainer.n_gpus_per_node"]
    assert gpus == (each if nodes == "1" else f"{nodes} x {each}")
    page = (SCRIPTS[name].parent / "README.md").read_text()
    assert f"`NNODES={nodes}` and `NGPUS_PER_NODE={each}`" in page


def test_links_lead_somewhere() -> None:
    for page in FOLDER.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), (page, link)


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=lambda text: text.split("\n")[0][:40])
def test_commands_of_a_page_run(page: str, block: str, tmp_path: Path) -> None:
    """From the root of the repository; training, Ray and Slurm are stand-ins."""
    programs = dict.fromkeys(("python", "python3", "ray", "sbatch"), ECHO)
    run = subprocess.run(
        ["bash", "-euc", block],
        env=with_programs(tmp_path, **programs),
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout
    for script in re.findall(r"recipes/[\w/.]+", block):
        assert (FOLDER.parent / script).exists(), script
    for names in re.findall(r"prepare\.py (.+)", block):
        assert set(names.split()) <= tables().keys()
    for name in re.findall(r"(?:submit\.sh|slurm\.sbatch) (\w+)", block):
        assert name in SCRIPTS
