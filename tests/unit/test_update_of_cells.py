"""Blocks of several cells: products and variances add up, and a block has one pair of weights."""

import torch

from pcr_plugin.blocks import cells
from pcr_plugin.estimators import Merged, MicroBatchEstimator
from pcr_plugin.update import TwoGradientUpdate
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from tests.unit.test_update import Host, alone, batch_of, rule
from tests.unit.toy_host import Network


def apart(merged: Merged | None = None) -> Host:
    """The toy host with `up_proj` and `down_proj` of every block in cells of their own."""
    host = Host(rule(log_blocks=True))
    names = [name for block in host.blocks for name in block.parameters]
    found = cells(host.blocks, [name for name in names if "up_proj" in name])
    assert len(found.parts) == 2 * len(host.blocks)
    # Hooks find one access to a network.
    host.network = Network(0, layers=4)
    host.gradients = Fsdp2Gradients(host.network, found.parts)
    host.estimator = MicroBatchEstimator(
        host.gradients, len(found.parts), 1.0, torch.device("cpu"), merged=merged
    )
    host.update = TwoGradientUpdate(
        host.update.rule,
        host.blocks,
        host.gradients,
        host.estimator,
        lambda table: table,
        torch.random,
        from_first_rank=alone,
        gather=list,
        block_of_cell=found.block_of,
    )
    return host


def test_cells_with_the_same_units_change_nothing() -> None:
    whole, parts = Host(rule(log_blocks=True)), apart()
    expected, metrics = whole.step(batch_of()), parts.step(batch_of())
    assert metrics.keys() == expected.keys()
    for name in metrics.keys() - {"pcr/seconds"}:
        torch.testing.assert_close(
            metrics[name], expected[name], rtol=1e-12, atol=0, equal_nan=True
        )
    for name, gradient in whole.grads().items():
        torch.testing.assert_close(parts.grads()[name], gradient, rtol=1e-12, atol=1e-15)


def test_one_merged_unit_leaves_the_block_without_a_variance() -> None:
    """The rest of the block has enough of them, but its V is the sum."""
    one = Merged(
        cells=[False, True] * 4,
        sum_sizes=lambda sizes: torch.where(torch.arange(len(sizes)) == 0, sizes, 0.0),
        counts_units=True,
    )
    metrics = apart(one).step(batch_of())
    assert metrics["pcr/degenerate_blocks"] == 4
