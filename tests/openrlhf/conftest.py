"""The ranks run in OpenRLHF's own environment; one launch per number of ranks and session."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.inputs import Inputs
from tests.openrlhf.cases import CASES, MISTAKES, Case
from tests.openrlhf.expected import Oracle
from tests.openrlhf.records import Record, read
from tests.oracle.rule import Step
from tests.support.forking import ROOT
from tests.support.launch import run_ranks

STAND_INS = Path(__file__).parent / "stand_ins"
_EVERYTHING = "."


def interpreter() -> Path:
    """Python of OpenRLHF's environment.

    Raises:
        pytest.fail.Exception: there is none.
    """
    default = ROOT / ".venv-openrlhf" / "bin" / "python"
    python = Path(os.environ.get("PCR_OPENRLHF_PYTHON", default))
    if not python.exists():
        pytest.fail(
            f"{python} is missing: `make install-openrlhf` makes the environment that OpenRLHF's "
            "pins need, or PCR_OPENRLHF_PYTHON names its interpreter",
            pytrace=False,
        )
    return python


class Runs:
    """Records of all cases, by number of ranks; ranks start when first asked for.

    Args:
        folder: for inputs and records.
        python: of OpenRLHF's environment.
    """

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self._python = folder, python
        self.inputs = Inputs.create(folder)
        self._oracle = Oracle(self.inputs)
        self._outcome = cache(self._launch)

    def of(self, name: str, ranks: int = 2) -> list[Record]:
        """Every rank's record of a case."""
        return [records[name] for records in self._all(ranks)]

    def mistakes(self) -> list[dict[str, str]]:
        """Every rank's errors, by what was wrong."""
        return [records[MISTAKES] for records in self._all(2)]

    def _all(self, ranks: int) -> list[dict[str, Any]]:
        outcome = self._outcome(ranks)
        if isinstance(outcome, RuntimeError):
            raise outcome
        return outcome

    def expected(self, case: Case, ranks: int = 2) -> Step:
        """What the oracle makes of the case."""
        return self._oracle.step(case, self.of(case.name, ranks))

    def _launch(self, ranks: int) -> list[dict[str, Any]] | RuntimeError:
        folder = self.folder / f"{ranks}"
        try:
            run_ranks(
                "tests.openrlhf.worker",
                ranks,
                folder,
                arguments=[os.environ.get("PCR_OPENRLHF_CASES", _EVERYTHING)],
                python=self._python,
                timeout=1800,
                search=[STAND_INS],
            )
        except RuntimeError as error:
            return error
        return read(folder, ranks)


@pytest.fixture(scope="session")
def openrlhf_python() -> Path:
    """Python of OpenRLHF's environment."""
    return interpreter()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, openrlhf_python: Path) -> Runs:
    """The cases' records."""
    return Runs(tmp_path_factory.mktemp("openrlhf"), openrlhf_python)


BY_NAME = {case.name: case for case in CASES}
