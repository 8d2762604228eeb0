"""What a run is: the code that makes its numbers, and what veRL is told."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.study import design, identity, jobs
from examples.study.jobs import ENGINE
from tests.support.copying import copy_source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    """Of the study and of the package, to be changed."""
    places = tmp_path / "study", tmp_path / "package"
    for source, place in zip((identity.STUDY, identity.PACKAGE), places, strict=True):
        copy_source(source, place)
    return places


def test_a_copy_is_the_same_code(copies: tuple[Path, Path]) -> None:
    assert identity.code(*copies) == identity.code()


@pytest.mark.parametrize(
    "path",
    [
        *("package/rules/__init__.py", "package/estimators/__init__.py"),
        *("package/verl/engine.py", "package/verl_cpu/patches.py", "package/demo/warm_start.py"),
        *("study/engine/run.py", "study/measure.py", "study/sampler.py", "study/start.py"),
    ],
)
def test_what_makes_numbers_counts(copies: tuple[Path, Path], path: str) -> None:
    changed = copies[0].parent / path
    changed.write_text(changed.read_text() + "\nANOTHER = 1\n")
    assert identity.code(*copies) != identity.code()


def test_a_new_file_of_the_method_counts(copies: tuple[Path, Path]) -> None:
    (copies[1] / "rules" / "another.py").write_text("ANOTHER = 1\n")
    assert identity.code(*copies) != identity.code()


@pytest.mark.parametrize(
    "path",
    [
        *("package/cli/main.py", "package/plots/figures/front.py", "package/openrlhf/__init__.py"),
        *("package/version.py", "package/demo/figure.py"),
        *("study/tables.py", "study/design.py", "study/sweep.py"),
    ],
)
def test_what_shows_or_plans_does_not(copies: tuple[Path, Path], path: str) -> None:
    changed = copies[0].parent / path
    changed.write_text(changed.read_text() + "\nANOTHER = 1\n")
    assert identity.code(*copies) == identity.code()


def test_words_and_layout_do_not(copies: tuple[Path, Path]) -> None:
    path = copies[1] / "rules" / "__init__.py"
    whole = path.read_text() + '\n\nclass Another:\n    """{}"""\n    one = {}\n'

    def code(words: str, value: str) -> str:
        identity.code.cache_clear()
        path.write_text(whole.replace("{}", words, 1).replace("{}", value, 1))
        return identity.code(*copies)

    assert code("A class.", "1") == code("Another class.", "(1)  # one")
    assert code("A class.", "1") != code("A class.", "2")


def test_every_module_that_a_run_loads_counts() -> None:
    """But for those that say which copy this is, and what reads veRL's log in the full tier."""
    script = (
        "import sys\n"
        "import examples.study.engine.run, examples.study.full, examples.study.sampler\n"
        "import pcr_plugin.verl.engine, pcr_plugin.demo.training\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.startswith(('pcr_plugin', 'examples.study')):\n"
        "        print(module.__file__)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = {Path(line) for line in result.stdout.splitlines() if line.startswith(str(ROOT))}
    assert identity.PACKAGE / "verl" / "engine.py" in loaded
    left = {path.relative_to(ROOT).as_posix() for path in loaded - set(identity.sources())}
    allowed = {
        *("pcr_plugin/fingerprint.py", "pcr_plugin/version.py", "pcr_plugin/demo/log.py"),
        *("examples/study/__init__.py", "examples/study/identity.py"),
    }
    assert {path for path in left if not path.startswith("pcr_plugin/plots/")} <= allowed


def what(folder: Path, made: design.Design) -> dict[str, Any]:
    [job] = jobs.jobs(ENGINE, replace(made, points=made.points[1:]), folder)
    return job.what


def test_a_job_says_what_it_is_told_and_by_which_code_it_runs(tmp_path: Path) -> None:
    found = what(tmp_path, design.small())
    assert found["code"] == identity.code()
    assert found["packages"].keys() >= {"python", "torch", "transformers", "verl"}
    told = found["overrides"]
    assert "actor_rollout_ref.actor.kl_loss_coef=0.01" in told
    assert "actor_rollout_ref.actor.update_rule=pcr" in told
    assert not any(str(tmp_path) in each for each in told)


def test_another_folder_is_the_same_run_and_another_setting_is_not(tmp_path: Path) -> None:
    small = design.small()
    first = what(tmp_path / "one", small)
    assert what(tmp_path / "two", small) == first
    sizes = replace(small.sizes, micro_batches=4)
    other = what(tmp_path / "one", replace(small, sizes=sizes))
    assert other["overrides"] != first["overrides"]
    start = replace(small.start, seed=1)
    assert what(tmp_path / "one", replace(small, start=start)) != first


def test_a_start_is_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.study.start import located

    before = located(tmp_path, design.small().start)
    monkeypatch.setattr(identity, "code", lambda: "other")
    assert located(tmp_path, design.small().start) != before
