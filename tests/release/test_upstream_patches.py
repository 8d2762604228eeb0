"""Each patch in upstream/verl applies to a copy of the installed veRL and passes its own tests.

The same tests fail on an unpatched copy. They touch different files, so one copy has all of them.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATCHES = sorted((ROOT / "upstream" / "verl").glob("*.patch"))


def copy_of_verl(place: Path) -> Path:
    """A folder with the installed veRL's files in it."""
    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.origin is not None
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(spec.origin).parent, place / "verl", ignore=ignored)
    return place


def apply(patch: Path, tree: Path, *options: str) -> str:
    """Output of `patch -p1`, which must take every hunk as it is."""
    done = subprocess.run(
        ["patch", "-p1", "--fuzz=0", "--forward", "--batch", *options, "-i", str(patch)],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "offset" not in done.stdout, done.stdout
    return done.stdout


def files_of(patch: Path) -> list[str]:
    """The test files that a patch adds."""
    return re.findall(r"^\+\+\+ b/(tests/\S+\.py)$", patch.read_text(), re.MULTILINE)


def run_tests(tree: Path) -> str:
    """pytest's report on the tests of all patches, on the veRL of a tree and no other."""
    (tree / "conftest.py").write_text(
        "import pathlib\nimport verl\n"
        "assert pathlib.Path(verl.__file__).parents[1] == pathlib.Path(__file__).parent\n"
    )
    options = ["-q", "-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    files = [name for patch in PATCHES for name in files_of(patch)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return done.stdout


def test_there_are_three_and_each_has_a_text_and_tests() -> None:
    assert len(PATCHES) == 3
    for patch in PATCHES:
        text = patch.with_suffix(".md").read_text()
        for section in (
            "### What does this PR do?",
            "### Checklist Before Starting",
            "### Test",
            "### API and Usage Example",
            "### Design & Code Changes",
            "### Checklist Before Submitting",
        ):
            assert section in text, patch.name
        assert re.search(r"^Title: `\[[\w, ]+\] (feat|fix|refactor|chore|test): .+`$", text, re.M)
        assert all(name.endswith("_on_cpu.py") for name in files_of(patch))
        assert all(name in text for name in files_of(patch))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy with all patches, and one with nothing but their tests."""
    patched = copy_of_verl(tmp_path_factory.mktemp("patched"))
    plain = copy_of_verl(tmp_path_factory.mktemp("plain"))
    for patch in PATCHES:
        apply(patch, patched)
    shutil.copytree(patched / "tests", plain / "tests")
    return patched, plain


@pytest.fixture(scope="module")
def with_patches(trees: tuple[Path, Path]) -> str:
    """What pytest says of all tests in the copy that has the patches."""
    return run_tests(trees[0])


@pytest.fixture(scope="module")
def without_patches(trees: tuple[Path, Path]) -> str:
    """What it says in the copy that has the tests alone."""
    return run_tests(trees[1])


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_patch_applies_alone(patch: Path, tmp_path: Path) -> None:
    tree = copy_of_verl(tmp_path)
    assert f"checking file {files_of(patch)[0]}" in apply(patch, tree, "--dry-run")
    assert not (tree / "tests").exists()


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_its_own_tests_pass_with_it(patch: Path, with_patches: str) -> None:
    [name] = map(re.escape, files_of(patch))
    assert len(re.findall(rf"^PASSED {name}", with_patches, re.MULTILINE)) >= 2, with_patches
    assert not re.search(rf"^(FAILED|ERROR|SKIPPED) {name}", with_patches, re.M), with_patches


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_its_own_tests_fail_without_it(patch: Path, without_patches: str) -> None:
    [name] = map(re.escape, files_of(patch))
    assert re.search(rf"^(FAILED|ERROR) {name}", without_patches, re.M), without_patches


def test_the_patches_can_be_taken_back(tmp_path: Path) -> None:
    tree = copy_of_verl(tmp_path)
    stock = {path: path.read_bytes() for path in tree.rglob("*.py")}
    for patch in PATCHES:
        apply(patch, tree)
    for patch in reversed(PATCHES):
        command = ["patch", "-p1", "-R", "--batch", "-i", str(patch)]
        subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    assert {path: path.read_bytes() for path in tree.rglob("*.py")} == stock
