"""One launch per number of ranks and session; the tests read what its cases have left."""

from functools import cache
from pathlib import Path

import pytest
import torch

from tests.distributed.cases import Case
from tests.distributed.expected import Oracle
from tests.distributed.inputs import Inputs
from tests.distributed.records import CaseRecord
from tests.distributed.variants import STOCK
from tests.support.launch import run_ranks


class Runs:
    """Records of all cases, by number of ranks; ranks start when first asked for.

    Args:
        folder: with the inputs.
        worker: module that runs the cases on one rank.
    """

    def __init__(self, folder: Path, worker: str = "tests.distributed.worker") -> None:
        self._folder, self._worker = folder, worker
        self._outcome = cache(self._launch)

    def of(self, name: str, ranks: int = 2) -> list[CaseRecord]:
        """Every rank's record of a case or scenario."""
        outcome = self._outcome(ranks)
        if isinstance(outcome, RuntimeError):
            raise outcome
        return [records[name] for records in outcome]

    def stock(self, case: Case, ranks: int) -> list[CaseRecord]:
        """Every rank's record of the stock case of the same recipe."""
        return self.of(f"{case.recipe.name}-{STOCK}", ranks)

    def _launch(self, ranks: int) -> list[dict[str, CaseRecord]] | RuntimeError:
        """The records; or the failure, which is remembered: every test would wait for it again."""
        folder = self._folder / f"ranks{ranks}"
        try:
            run_ranks(self._worker, ranks, folder, timeout=3000)
        except RuntimeError as error:
            return error
        return [
            torch.load(folder / f"records{rank}.pt", weights_only=False) for rank in range(ranks)
        ]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Models and mini-batches; also on disk, where the ranks find them."""
    return Inputs.create(tmp_path_factory.mktemp("distributed"))


@pytest.fixture(scope="session")
def runs(inputs: Inputs) -> Runs:
    """Access to the records of all ranks."""
    return Runs(inputs.checkpoints["wide"].parent)


@pytest.fixture(scope="session")
def oracle(inputs: Inputs) -> Oracle:
    """The dense reference for the same inputs."""
    return Oracle(inputs)
