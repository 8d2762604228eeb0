"""The estimator `sequence`: probes of dense per-row gradients, whatever carries the rows."""

from statistics import mean, stdev

import pytest

from tests.distributed.cases import ONE_EACH, PROBED, SEEDS, Case
from tests.distributed.conftest import Runs
from tests.distributed.expected import Oracle
from tests.distributed.recipe import Recipe

# Of one step with the default number of directions, on a model as narrow as this.
ALPHA_ERROR = 0.05

CASES = [
    pytest.param(case, ranks, id=f"{case.name}-{ranks}") for case in PROBED for ranks in case.ranks
]


@pytest.mark.parametrize(("case", "ranks"), CASES)
def test_something_is_compared(case: Case, ranks: int, runs: Runs, oracle: Oracle) -> None:
    """`test_statistics` compares alpha of the blocks in conflict, and V of those that have it."""
    records = runs.of(case.name, ranks)
    for step, expected in enumerate(oracle.steps(case, records)):
        blocks = expected.blocks.values()
        assert records[0].steps[step].metrics["pcr/degenerate_blocks"] == 0
        assert any(block.conflict for block in blocks)
        assert all(block.variances for block in blocks)


@pytest.mark.parametrize("recipe", SEEDS, ids=lambda recipe: recipe.name)
def test_unbiased_over_seeds(recipe: Recipe, runs: Runs, oracle: Oracle) -> None:
    """Against V of the dense gradients of single rows: no probes are known to this oracle."""
    case = Case(recipe=recipe, variant="paper_many_sequences")
    steps = runs.of(case.name)[0].steps
    expected = oracle.over_rows(case)
    for index, name in enumerate(("pcr/var_pla", "pcr/var_sta")):
        exact = mean(b.variances[index] for b in expected.blocks.values() if b.variances)
        found = [step.metrics[name] for step in steps]
        error = stdev(found) / len(found) ** 0.5
        assert abs(mean(found) - exact) < 3 * error
        assert error < 0.05 * exact
        # What the documentation says of one step with the default number of directions.
        assert stdev(found) < 0.1 * exact


def test_alpha_with_one_micro_batch_per_rank(runs: Runs, oracle: Oracle) -> None:
    """Every block's, around the one that the exact variances give.

    Hooks on weights, whose units are two micro-batches, are further off.
    """
    case = Case(recipe=SEEDS[-1], variant="paper_many_sequences")
    steps = runs.of(case.name)[0].steps
    blocks = {k: b for k, b in oracle.over_rows(case).blocks.items() if b.conflict}
    assert blocks
    coarse, off = runs.of(f"{ONE_EACH.name}-paper")[0].steps[0].metrics, list[float]()
    for label, block in blocks.items():
        found = [step.metrics[f"pcr/block/{label}/alpha"] for step in steps]
        assert abs(mean(found) - block.alpha) < 4 * stdev(found) / len(found) ** 0.5
        assert stdev(found) < ALPHA_ERROR
        off.append(abs(coarse[f"pcr/block/{label}/alpha"] - block.alpha))
    assert max(off) > ALPHA_ERROR
