"""The hooks in a pipeline: several micro-batches announced before their backward passes."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from pcr_plugin.blocks import partition
from pcr_plugin.estimators import MicroBatchEstimator, Objective
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from tests.unit.estimators.test_micro_batch import CPU, LOSSES, one_by_one
from tests.unit.toy_host import Batch, Loss, Network, conflicting_batch, cut

SIZES = (1, 4, 2, 3)


def attach(network: Network, *, counts_units: bool = True) -> MicroBatchEstimator:
    """An estimator for a pipeline stage."""
    blocks = partition([name for name, _ in network.named_parameters()], "mlp")
    return MicroBatchEstimator(
        Fsdp2Gradients(network, blocks),
        len(blocks),
        1.0,
        CPU,
        in_order=True,
        counts_units=counts_units,
    )


def staggered(
    estimator: MicroBatchEstimator,
    network: Network,
    batch: Batch,
    loss: Loss,
    *,
    ahead: int,
    sizes: Sequence[int] = SIZES,
) -> None:
    """As a pipeline stage runs it: `ahead` forward passes before the first backward pass."""
    waiting: list[Tensor] = []
    for micro_batch in cut(batch, sizes):
        estimator.start_unit(float(len(micro_batch)))
        waiting.append(loss(network(micro_batch.inputs), micro_batch) / len(batch))
        if len(waiting) > ahead:
            waiting.pop(0).backward()
    for value in waiting:
        value.backward()


def measured(run: Callable[[Loss], None], estimator: MicroBatchEstimator) -> None:
    """One step of both objectives."""
    estimator.begin()
    for objective, loss in LOSSES.items():
        estimator.collect(objective, lambda part, loss=loss: run(loss))


@pytest.mark.parametrize("ahead", range(len(SIZES)))
def test_every_gradient_is_divided_by_its_own_units_size(ahead: int) -> None:
    network, batch = Network(0), conflicting_batch(0, sum(SIZES))
    estimator = attach(network)
    for _ in range(2):
        measured(lambda loss: staggered(estimator, network, batch, loss, ahead=ahead), estimator)
        columns = estimator.columns([], [])
        expected = one_by_one(network, batch, SIZES)
        torch.testing.assert_close(columns.squares, expected, rtol=1e-12, atol=0)
        assert columns.mass.tolist() == [sum(SIZES)] * 2
        assert columns.units.tolist() == [len(SIZES)] * 2


def test_a_rank_that_does_not_count_units_still_measures() -> None:
    """Tensor-parallel ranks and stages have the same units and different parameters."""
    network, batch = Network(1), conflicting_batch(1, sum(SIZES))
    estimator = attach(network, counts_units=False)
    measured(lambda loss: staggered(estimator, network, batch, loss, ahead=1), estimator)
    columns = estimator.columns([], [])
    expected = one_by_one(network, batch, SIZES)
    torch.testing.assert_close(columns.squares, expected, rtol=1e-12, atol=0)
    assert columns.mass.tolist() == [0.0] * 2
    assert columns.units.tolist() == [0.0] * 2


def test_a_unit_without_tokens_keeps_its_place() -> None:
    network, batch = Network(2), conflicting_batch(2, 6)
    estimator = attach(network)

    def run(loss: Loss) -> None:
        first, second = cut(batch, (2, 4))
        values = [loss(network(part.inputs), part) / len(batch) for part in (first, second)]
        padding = 0.0 * network(batch.inputs).sum()
        for size in (2.0, 0.0, 4.0):
            estimator.start_unit(size)
        for value in (values[0], padding, values[1]):
            value.backward()

    measured(run, estimator)
    columns = estimator.columns([], [])
    expected = one_by_one(network, batch, (2, 4))
    torch.testing.assert_close(columns.squares, expected, rtol=1e-12, atol=0)
    assert columns.units.tolist() == [2, 2]


def announced(
    estimator: MicroBatchEstimator, network: Network, backward_passes: int, part: int | None
) -> None:
    """Three units, and any number of backward passes."""
    for size in (1.0, 2.0, 3.0):
        estimator.start_unit(size)
    inputs = conflicting_batch(3, 3).inputs
    for _ in range(backward_passes):
        network(inputs).sum().backward()


def test_a_gradient_too_many_is_a_problem() -> None:
    network = Network(3)
    estimator = attach(network)
    estimator.begin()
    estimator.collect(Objective.STABILITY, partial(announced, estimator, network, 4))
    assert "'layers.0.mlp.up_proj.weight'" in estimator.problem
    assert "more than once in one of 3 micro-batches" in estimator.problem
    assert "pcr.variance.estimator=split_half" in estimator.problem


@pytest.mark.parametrize("backward_passes", [1, 2])
def test_a_gradient_too_few_is_a_problem(backward_passes: int) -> None:
    """It cannot be told which of the micro-batches has none."""
    network = Network(3)
    estimator = attach(network)
    estimator.begin()
    estimator.collect(Objective.PLASTICITY, partial(announced, estimator, network, backward_passes))
    assert "'layers.0.mlp.up_proj.weight'" in estimator.problem
    assert "not in every one of 3 micro-batches" in estimator.problem
    assert "pcr.variance.estimator=split_half" in estimator.problem


def test_three_gradients_of_three_units_are_none() -> None:
    network = Network(3)
    estimator = attach(network)
    estimator.begin()
    estimator.collect(Objective.PLASTICITY, partial(announced, estimator, network, 3))
    assert estimator.problem == ""
    assert bool((estimator.columns([], []).squares[:, Objective.PLASTICITY] > 0).all())


def test_a_stage_without_parameters_in_the_scope_counts_its_units() -> None:
    """A pipeline's last stage may hold no more than the output layer."""
    network, batch = Network(4), conflicting_batch(4, sum(SIZES))
    gradients = Fsdp2Gradients(network, [])
    estimator = MicroBatchEstimator(gradients, 2, 1.0, CPU, in_order=True)
    measured(lambda loss: staggered(estimator, network, batch, loss, ahead=1), estimator)
    columns = estimator.columns([], [])
    assert columns.squares.tolist() == [[0.0, 0.0]] * 2
    assert columns.units.tolist() == [len(SIZES)] * 2
