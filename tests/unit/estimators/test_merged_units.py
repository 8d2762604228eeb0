"""Cells whose gradients hold the micro-batches of two ranks: the units are the sums of theirs."""

import pytest
import torch
from torch import Tensor

from pcr_plugin.blocks import partition
from pcr_plugin.estimators import Merged, MicroBatchEstimator, UnitColumns
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from tests.unit.estimators.test_micro_batch import CPU, LOSSES
from tests.unit.toy_host import Network, conflicting_batch, cut

OWN, OTHERS = (1.0, 4.0, 0.0, 0.0), (2.0, 0.0, 3.0, 0.0)


def measured(merged: Merged | None) -> UnitColumns:
    """A step in which the units' gradients are those of one network on four micro-batches."""
    network, batch = Network(0), conflicting_batch(0, 8)
    blocks = partition([name for name, _ in network.named_parameters()], "mlp")
    estimator = MicroBatchEstimator(
        Fsdp2Gradients(network, blocks), len(blocks), 1.0, CPU, merged=merged
    )
    estimator.begin()
    for objective, loss in LOSSES.items():

        def run(part: int | None, loss: object = loss) -> None:
            for size, micro_batch in zip(OWN, cut(batch, (2, 2, 2, 2)), strict=True):
                estimator.start_unit(size)
                loss(network(micro_batch.inputs), micro_batch).backward()  # type: ignore[operator]

        estimator.collect(objective, run)
    return estimator.columns([], [])


def together(sizes: Tensor) -> Tensor:
    """What a sum over two ranks gives."""
    return sizes + torch.tensor(OTHERS, dtype=sizes.dtype)


def squares() -> Tensor:
    """(units, C, 2) squared norms, by dividing each unit by 1 and the others by infinity."""
    rows = []
    for unit in range(len(OWN)):
        sizes = torch.full((len(OWN),), torch.inf, dtype=torch.float64)
        sizes[unit] = 1.0
        alone = Merged(cells=(True, True), sum_sizes=lambda _, s=sizes: s, counts_units=True)
        rows.append(measured(alone).squares)
    return torch.stack(rows)


def test_squares_are_divided_by_the_sizes_of_all_ranks_together() -> None:
    found = measured(Merged(cells=(False, True), sum_sizes=together, counts_units=True))
    each = squares()
    own = each[0, 0] / 1 + each[1, 0] / 4
    merged = each[0, 1] / 3 + each[1, 1] / 4 + each[2, 1] / 3
    torch.testing.assert_close(found.squares, torch.stack([own, merged]), rtol=1e-12, atol=0)
    assert found.mass.tolist() == [5.0, 10.0]
    assert found.units.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("counts", [True, False])
def test_one_rank_counts_the_merged_units(counts: bool) -> None:
    found = measured(Merged(cells=(False, True), sum_sizes=together, counts_units=counts))
    assert found.mass.tolist() == [5.0, 10.0 * counts]
    assert found.units.tolist() == [2.0, 3.0 * counts]


def test_cells_that_are_not_merged_have_the_units_of_this_rank() -> None:
    none = measured(None)
    apart = measured(Merged(cells=(False, False), sum_sizes=lambda sizes: sizes, counts_units=True))
    torch.testing.assert_close(none.squares, apart.squares, rtol=0, atol=0)
    assert none.units.tolist() == apart.units.tolist() == [2.0, 2.0]
