"""The gradient that veRL's optimizer gets, against the dense float64 oracle."""

import pytest

from tests.distributed.cases import AGAINST_ORACLE, PROBED, Case
from tests.distributed.conftest import Runs
from tests.distributed.expected import Oracle, blocks_of, relative_errors
from tests.distributed.variants import STOCK, VARIANTS
from tests.support.tiny_model import MODELS

# The stock engine computes in float32 too: its own distance from the oracle, 6e-7 to 1.3e-6 with
# most models, is what float32 gives. Two passes may add rounding of
# their own, but not more than this many times as much ...
TIMES_STOCK = 3.0
# ... and stock itself must be near the oracle, or the comparison would mean nothing. The narrow
# model's norms divide by the spread of four numbers: up to 4e-6, depending on the processor.
STOCK_ERROR = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 5e-2}

PAIRS = [
    pytest.param(case, ranks, id=f"{case.name}-{ranks}")
    for case in (*AGAINST_ORACLE, *PROBED)
    for ranks in case.ranks
]


@pytest.mark.parametrize(("case", "ranks"), PAIRS)
def test_combined_gradient(case: Case, ranks: int, runs: Runs, oracle: Oracle) -> None:
    records, stock = runs.of(case.name, ranks), runs.stock(case, ranks)
    blocks = blocks_of(MODELS[case.recipe.model], VARIANTS[case.variant].blocks)
    plain = oracle.stock(case, stock)
    expected = plain if case.variant == STOCK else oracle.steps(case, records)
    for step, (ours, summed) in enumerate(zip(expected, plain, strict=True)):
        stock_errors = relative_errors(stock[0].steps[step].gradient, summed, blocks)
        errors = relative_errors(records[0].steps[step].gradient, ours, blocks)
        assert max(stock_errors.values()) < STOCK_ERROR[case.recipe.precision]
        assert max(errors.values()) < TIMES_STOCK * max(stock_errors.values()), errors
