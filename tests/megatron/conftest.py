"""One launch per number of ranks and session; the tests read what its cases have left."""

from typing import cast

import pytest

from tests.distributed.conftest import Runs, inputs, oracle
from tests.distributed.inputs import Inputs
from tests.megatron.cases import MegatronCase, stock
from tests.megatron.records import MegatronRecord

__all__ = ["inputs", "oracle"]


class MegatronRuns(Runs):
    """Records of all cases."""

    def records(self, case: MegatronCase) -> list[MegatronRecord]:
        """Every rank's record of a case."""
        return cast(list[MegatronRecord], self.of(case.name, case.layout.ranks))

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
