"""Micro-batches without advantage: which have no surrogate backward pass, and that it is exact.

Gradients and statistics of these cases are compared with the oracle by `test_gradients`,
`test_statistics` and `test_sequences`; what all advantages zero gives is in `test_degenerate`.
"""

import pytest
import torch

from tests.distributed.cases import FEW
from tests.distributed.conftest import Runs
from tests.distributed.variants import STOCK

# Of `few_advantages`, two rows in a micro-batch: those without advantage on all ranks.
AS_THEY_COME = {1: [2, 3], 2: [], 3: []}
# Rows 1, 2, 8 and 11 have one.
SORTED = {1: [2, 3, 4, 5], 2: [1, 2], 3: [1]}
# Every other micro-batch of a rank is in a half, which is sorted by itself.
SORTED_HALVES = {1: [1, 2, 4, 5], 2: [1], 3: []}
every_number = pytest.mark.parametrize("ranks", [1, 2, 3])


@every_number
@pytest.mark.parametrize(
    ("variant", "places"),
    [
        (STOCK, {1: [], 2: [], 3: []}),
        ("paper", AS_THEY_COME),
        ("paper_sequences", AS_THEY_COME),
        ("paper_sequences_group", SORTED),
        ("robust_halves_group", SORTED_HALVES),
    ],
)
def test_skipped_are_those_without_advantage_on_every_rank(
    variant: str, places: dict[int, list[int]], ranks: int, runs: Runs
) -> None:
    for record in runs.of(f"{FEW.name}-{variant}", ranks):
        assert record.steps[0].unreached == places[ranks]


@every_number
@pytest.mark.parametrize("variant", ["paper_sequences_group", "robust_halves_group"])
def test_grouping_loses_no_row(variant: str, ranks: int, runs: Runs) -> None:
    stock = runs.of(f"{FEW.name}-{STOCK}", ranks)
    for record, other in zip(runs.of(f"{FEW.name}-{variant}", ranks), stock, strict=True):
        mine, theirs = (
            sorted(row for rows in r.steps[0].micro_batches for row in rows)
            for r in (record, other)
        )
        assert mine == theirs


def test_run_runs_all_and_changes_nothing(runs: Runs) -> None:
    """To the last bit: what is skipped is a gradient of zeros."""
    skipping, running = (runs.of(f"{FEW.name}-{v}", 1) for v in ("paper", "paper_run"))
    mine, theirs = skipping[0].steps[0], running[0].steps[0]
    assert mine.unreached and not theirs.unreached
    assert mine.digest == theirs.digest
    for name, gradient in theirs.gradient.items():
        assert torch.equal(mine.gradient[name], gradient), name
    for name, value in theirs.metrics.items():
        assert name == "pcr/seconds" or mine.metrics[name] == value, name


def test_a_row_that_is_not_a_number_is_run(runs: Runs) -> None:
    """All other advantages are zero too."""
    for record in runs.of("few_poisoned-paper"):
        assert record.steps[0].unreached == [0, 1]
        assert record.steps[0].norm != record.steps[0].norm
