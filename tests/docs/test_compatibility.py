"""The page on compatibility, the package, the Makefile and the workflow name the same releases."""

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from pcr_plugin.verl import host
from tests.release.test_workflows import MAKEFILE, PROJECT, PYTHONS, jobs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """Release to the rest of its row, of the table below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return {line.split("|")[1].strip(): line for line in lines}


def numbers(names: set[str]) -> set[str]:
    """Of releases that have more said of them."""
    return {name.split(",")[0] for name in names}


def listed(heading: str, *statuses: str) -> set[str]:
    return {name for name, row in rows(heading).items() if row.split("|")[2].strip() in statuses}


def tried(heading: str) -> set[str]:
    return listed(heading, "tried")


def matrix(job: str, axis: str) -> list[str]:
    found: list[str] = jobs("ci.yml")[job]["strategy"]["matrix"][axis]
    return found


def test_the_releases_of_verl_are_those_that_the_package_knows_and_ci_runs() -> None:
    assert tried("veRL") == set(host.TRIED) == set(matrix("hosts", "verl"))
    [extra] = PROJECT["optional-dependencies"]["verl"]
    allowed = SpecifierSet(extra.removeprefix("verl"))
    assert all(release in allowed for release in host.TRIED)
    assert {".".join(release.split(".")[:2]) for release in host.TRIED} == {host.SERIES}
    assert f"{host.SERIES}.99" in allowed
    series = Version(host.SERIES)
    assert f"{series.major}.{series.minor + 1}" not in allowed


def test_the_megatron_core_is_the_one_that_is_installed() -> None:
    [release] = host.TRIED_MEGATRON_CORE
    [row] = tried("Megatron-core")
    assert row.startswith(f"{release}, with mbridge ")
    requirements = (ROOT / "requirements-cpu.txt").read_text()
    assert f"megatron-core=={release} " in requirements
    assert f"{row.rsplit(' ', 1)[1]}" in requirements


def test_a_release_that_was_tried_says_what_was_run_and_when() -> None:
    for heading in ("veRL", "Megatron-core", "Python", "torch"):
        for name in tried(heading):
            what, when = rows(heading)[name].split("|")[3:5]
            assert "`" in what
            assert re.fullmatch(r"\d{4}-\d{2}-\d{2}|every change", when.strip())


def test_the_pythons_are_those_that_are_declared_and_ci_runs() -> None:
    assert tried("Python") == set(PYTHONS) == set(matrix("units", "python"))


def test_the_releases_of_torch_are_those_that_ci_runs() -> None:
    releases = matrix("torch", "torch")
    assert numbers(listed("torch", "tried", "in CI alone")) == set(releases)
    [bound] = [each for each in PROJECT["dependencies"] if each.startswith("torch")]
    assert all(release in SpecifierSet(bound.removeprefix("torch")) for release in releases)


def test_the_combination_that_runs_whole_is_what_is_installed() -> None:
    assert re.search(r"^VERL \?= (\S+)$", MAKEFILE, re.MULTILINE)[1] == "0.9.1"  # type: ignore[index]
    assert "verl==0.9.1 " in (ROOT / "requirements-cpu.txt").read_text()
    for name in ("0.9.1", "2.13.0", "3.11"):
        assert name in PAGE.split("\n## ")[0]


@pytest.mark.parametrize("job", ["hosts", "torch"])
def test_an_axis_changes_one_thing(job: str) -> None:
    """The matrix's variable is one that the Makefile reads from the environment."""
    [(axis, _)] = jobs("ci.yml")[job]["strategy"]["matrix"].items()
    environment: dict[str, Any] = jobs("ci.yml")[job]["env"]
    assert environment == {axis.upper(): f"${{{{ matrix.{axis} }}}}"}
    assert re.search(rf"^{axis.upper()} \?= ", MAKEFILE, re.MULTILINE)
