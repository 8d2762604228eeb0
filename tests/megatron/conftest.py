"""One launch per number of ranks and session; the tests read what its cases have left."""

import pytest

from tests.distributed.conftest import Runs, inputs, oracle
from tests.distributed.inputs import Inputs
from tests.distributed.records import CaseRecord
from tests.megatron.cases import MegatronCase, stock

__all__ = ["inputs", "oracle"]


class MegatronRuns(Runs):
    """Records of all cases."""

    def records(self, case: MegatronCase) -> list[CaseRecord]:
        """Every rank's record of a case."""
        return self.of(case.name, case.layout.ranks)

    def replicas(self, case: MegatronCase) -> list[CaseRecord]:
        """One record per data-parallel rank, which is what the oracle wants to know."""
        return case.layout.first_of_each_replica(self.records(case))

    def stock_replicas(self, case: MegatronCase) -> list[CaseRecord]:
        """The same of the stock case of the same recipe and layout."""
        return self.replicas(stock(case))


@pytest.fixture(scope="session")
def runs(inputs: Inputs) -> MegatronRuns:
    """Access to the records of all ranks."""
    return MegatronRuns(inputs.checkpoints["even"].parent, "tests.megatron.worker")
