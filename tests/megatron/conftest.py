"""One launch per number of ranks and session; the tests read what its cases have left."""

from typing import cast

import pytest
import torch

from tests.distributed.conftest import Runs, inputs, oracle
from tests.distributed.inputs import Inputs
from tests.distributed.records import CaseRecord
from tests.megatron.cases import MegatronCase, stock
from tests.megatron.records import MegatronRecord
from tests.megatron.shares import PRELOADED, shares
from tests.support.launch import run_ranks

__all__ = ["inputs", "oracle"]

# At the same time: twice as many as the cores of the CI, since ranks wait for each other.
_PROCESSES = 4


class MegatronRuns(Runs):
    """Records of all cases."""

    def _launch(self, ranks: int) -> list[dict[str, CaseRecord]] | RuntimeError:
        """The records of all shares of the cases; or the first failure."""
        folders = [self._folder / f"megatron{ranks}" / str(n) for n in range(len(shares(ranks)))]
        launches = [(folder, [str(share)]) for share, folder in enumerate(folders)]
        together = max(_PROCESSES // ranks, 1)
        for start in range(0, len(launches), together):
            (folder, arguments), *beside = launches[start : start + together]
            try:
                run_ranks(
                    self._worker,
                    ranks,
                    folder,
                    arguments=arguments,
                    timeout=1500,
                    preloaded=PRELOADED,
                    beside=beside,
                )
            except RuntimeError as error:
                return error
        everything: list[dict[str, CaseRecord]] = [{} for _ in range(ranks)]
        for folder in folders:
            for rank, records in enumerate(everything):
                records |= torch.load(folder / f"records{rank}.pt", weights_only=False)
        return everything

    def records(self, case: MegatronCase) -> list[MegatronRecord]:
        """Every rank's record of a case."""
        return cast(list[MegatronRecord], self.of(case.name, case.layout.ranks))

    def scenario(self, name: str, ranks: int) -> list[MegatronRecord]:
        """Every rank's record of one of `tests.megatron.scenarios`."""
        return cast(list[MegatronRecord], self.of(name, ranks))

    def replicas(self, case: MegatronCase) -> list[MegatronRecord]:
        """One record per data-parallel rank, which is what the oracle wants to know."""
        return case.layout.first_of_each_replica(self.records(case))

    def stock_replicas(self, case: MegatronCase) -> list[MegatronRecord]:
        """The same of the stock case of the same recipe and layout."""
        return self.replicas(stock(case))


@pytest.fixture(scope="session")
def runs(inputs: Inputs) -> MegatronRuns:
    """Access to the records of all ranks."""
    return MegatronRuns(inputs.checkpoints["even"].parent, "tests.megatron.worker")
