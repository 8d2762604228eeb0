"""GitHub's workflows call what exists, and run the Python versions that are declared."""

import re
import subprocess
import sys
from typing import Any

import pytest
import tomllib
import yaml
from packaging.specifiers import SpecifierSet

from pcr_plugin.version import __version__
from tests.release.distributions import ROOT

WORKFLOWS = {path.name: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [
    each.rsplit(" ", 1)[1]
    for each in PROJECT["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", each)
]


def jobs(workflow: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOWS[workflow].read_text())["jobs"]
    return found


def steps(workflow: str) -> list[dict[str, Any]]:
    return [step for job in jobs(workflow).values() for step in job["steps"]]


def test_the_workflows_are_these() -> None:
    assert set(WORKFLOWS) == {"ci.yml", "release.yml"}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_command_is_a_target_of_the_makefile(workflow: str) -> None:
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        called = re.fullmatch(r"make ([\w-]+) PYTHON=python", command)
        assert called, command
        assert re.search(rf"^{called[1]}:", MAKEFILE, re.MULTILINE), command


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_no_text_of_others_is_put_into_a_command(workflow: str) -> None:
    """A branch or a tag can have a name that a shell would run."""
    assert not [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")]


def test_ci_runs_what_the_script_of_this_repository_runs() -> None:
    script = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert script
    called = {step["run"].split()[1] for step in steps("ci.yml") if "run" in step}
    assert set(script) <= called


def test_python_versions_are_the_declared_ones() -> None:
    matrix = jobs("ci.yml")["units"]["strategy"]["matrix"]["python"]
    assert matrix == PYTHONS
    allowed = SpecifierSet(PROJECT["requires-python"])
    minors = [f"3.{minor}" for minor in range(20)]
    assert [each for each in minors if f"{each}.1" in allowed] == PYTHONS
    single = {s["with"]["python-version"] for s in steps("ci.yml") if "setup-python" in str(s)}
    assert single - {"${{ matrix.python }}"} <= set(PYTHONS)


def test_only_a_tag_publishes_and_without_a_token() -> None:
    workflow = yaml.safe_load(WORKFLOWS["release.yml"].read_text())
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert workflow["jobs"]["publish"]["needs"] == "build"
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in WORKFLOWS["release.yml"].read_text()


@pytest.mark.parametrize(("tag", "passes"), [(f"v{__version__}", True), ("v9.9.9", False)])
def test_a_tag_must_be_the_version(tag: str, passes: bool) -> None:
    command = ["make", "check-tag", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, env={"TAG": tag, "PATH": "/usr/bin:/bin"}, check=False)
    assert (done.returncode == 0) is passes


def test_the_changelog_has_the_version_on_top() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == re.sub(r"\.dev\d+$", "", __version__)


def test_the_citation_has_the_licence_and_the_paper_and_no_second_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"]
    assert citation["title"] == PROJECT["name"]
    assert {"cff-version", "message", "authors"} <= citation.keys()
    assert "version" not in citation
    [identifier] = citation["preferred-citation"]["identifiers"]
    assert identifier["value"].removeprefix("arXiv:") in PROJECT["description"]


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text().split()
    assert text[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in " ".join(text)
