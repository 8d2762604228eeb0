"""The pages of the recipes: each is in the table, and says what it must."""

import re
import subprocess
from pathlib import Path

import pytest

from recipes.data.prepare import tables
from tests.recipes.checks import accepted
from tests.recipes.commands import FOLDER, RULES, SCRIPTS, Command, command_in, command_of
from tests.recipes.pages import PAGES, ROOT, blocks, name_of
from tests.recipes.stand_ins import ECHO, RAY_JOB, SBATCH, calls, with_programs

pytestmark = pytest.mark.usefixtures("vllm_is_there")

PAGE = (FOLDER / "README.md").read_text()
ROWS = re.findall(r"^\| \[(\w+)\]\((\w+)/README\.md\) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)

BLOCKS = [
    pytest.param(block, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
]
OUTPUT_DIR = "/outputs"
UPSTREAM = ROOT / "upstream" / "recipe" / "pcr"


def test_table_has_all_recipes() -> None:
    assert [name for name, _, _, _ in ROWS] == [folder for _, folder, _, _ in ROWS]
    assert sorted(name for name, _, _, _ in ROWS) == sorted(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_page_of_a_recipe(name: str) -> None:
    page = (SCRIPTS[name].parent / "README.md").read_text()
    for words in ("## Claim", "## Hardware", "## Result", "Not run by us.", "## Run", "run.sh"):
        assert words in page, words
    assert f"`UPDATE_RULE=null bash recipes/{name}/run.sh`" in page
    assert f"`bash recipes/{name}/run.sh --cfg job` prints" in page


def required(folder: Path) -> dict[str, str]:
    """The fields of REQUIRED_VERL.txt, as verl-recipe's install script reads them."""
    lines = (folder / "REQUIRED_VERL.txt").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_pinned_verl_is_the_one_of_these_tests(name: str) -> None:
    fields, upstream = required(SCRIPTS[name].parent), required(UPSTREAM)
    requirements = (ROOT / "requirements-cpu.txt").read_text()
    [release] = re.findall(r"^verl==([\w.]+)", requirements, re.MULTILINE)
    assert fields["TAG"] == f"v{release}"
    assert fields["PIP_INSTALL"] == f"pip install verl=={release}"
    assert fields | {"NOTES": ""} == upstream | {"NOTES": ""}
    page = (SCRIPTS[name].parent / "README.md").read_text()
    assert f"[veRL {release}](REQUIRED_VERL.txt)" in page
    assert f"verl=={release}`" in page


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


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, critic: Path) -> set[Command]:
    """At first commands without arguments, which test_commands.py checks."""
    folder = tmp_path_factory.mktemp("checked")
    settings = {"OUTPUT_DIR": OUTPUT_DIR, "CRITIC_PATH": str(critic)}
    return {
        command_of(script, folder, UPDATE_RULE=rule, **settings)
        for script in SCRIPTS.values()
        for rule in RULES
    }


def check_training(command: Command) -> None:
    """That it would start, on tables which the recipes' own command writes."""
    assert command.module == "verl.trainer.main_ppo"
    config = command.composed()
    accepted(config)
    for file in (config.data.train_files, config.data.val_files):
        table = Path(file).parent.name
        assert Path(file).stem in tables()[table]


@pytest.mark.parametrize("block", BLOCKS)
def test_commands_of_a_page(
    block: str, tmp_path: Path, critic: Path, checked: set[Command]
) -> None:
    """From the root of the repository; training, Ray and Slurm are stand-ins."""
    programs = {"python": ECHO, "python3": ECHO, "ray": RAY_JOB, "sbatch": SBATCH}
    settings = {"OUTPUT_DIR": OUTPUT_DIR, "CRITIC_PATH": str(critic)}
    run = subprocess.run(
        ["bash", "-euc", block],
        env=with_programs(tmp_path, **programs) | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for script in re.findall(r"recipes/[\w/.]+", block):
        assert (ROOT / script).exists(), script
    called = calls(run.stdout)
    assert len(called) >= len(re.findall("prepare.py|run.sh|ray_job_submit.sh|slurm.sbatch", block))
    for call in called:
        if call[0] == "recipes/data/prepare.py":
            assert set(call[1:]) <= tables().keys()
        elif (command := command_in(call)) not in checked:
            check_training(command)
            checked.add(command)
