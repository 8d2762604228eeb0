"""Norms read by hooks, against gradients of micro-batches computed one by one."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from pcr_plugin.blocks import partition
from pcr_plugin.estimators import MicroBatchEstimator, Objective
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from tests.unit.toy_host import (
    WIDTH,
    Batch,
    Network,
    accumulate,
    conflicting_batch,
    cut,
    flat,
    gradient_of,
    kl,
    surrogate,
)

CPU = torch.device("cpu")
LOSSES = {Objective.STABILITY: kl, Objective.PLASTICITY: surrogate}


def blocks_of(network: Network) -> list[tuple[str, ...]]:
    names = [name for name, _ in network.named_parameters()]
    return [block.parameters for block in partition(names, "mlp")]


def attach(network: Network, scale: float = 1.0) -> MicroBatchEstimator:
    blocks = partition([name for name, _ in network.named_parameters()], "mlp")
    return MicroBatchEstimator(Fsdp2Gradients(network, blocks), len(blocks), scale, CPU)


def measure(
    estimator: MicroBatchEstimator, network: Network, batch: Batch, sizes: Sequence[int]
) -> None:
    """One step: both objectives, as the update runs them."""
    estimator.begin()
    for objective, loss in LOSSES.items():
        estimator.collect(
            objective, lambda part, loss=loss: accumulate(network, batch, sizes, loss, estimator)
        )


def one_by_one(network: Network, batch: Batch, sizes: Sequence[int]) -> Tensor:
    """(B, 2) sum_m ||g_m||^2 / n_m from a backward pass of its own for every micro-batch."""
    table = torch.zeros(len(blocks_of(network)), 2, dtype=torch.float64)
    for objective, loss in LOSSES.items():
        for micro_batch in cut(batch, sizes):
            gradients = gradient_of(network, micro_batch, loss, len(batch))
            for block, names in enumerate(blocks_of(network)):
                square = flat(gradients, names).double().square().sum()
                table[block, objective] += square / len(micro_batch)
    return table


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", [(4, 4), (1, 2, 5), (8,), (1,) * 8])
def test_sums_of_squares(seed: int, sizes: tuple[int, ...]) -> None:
    network, batch = Network(seed), conflicting_batch(seed, sum(sizes))
    estimator = attach(network)
    measure(estimator, network, batch, sizes)
    columns = estimator.columns([], [])
    torch.testing.assert_close(
        columns.squares, one_by_one(network, batch, sizes), rtol=1e-12, atol=0
    )
    assert columns.mass.tolist() == [sum(sizes)] * 2
    assert columns.units.tolist() == [len(sizes)] * 2
    assert columns.cross.isnan().all()


@pytest.mark.parametrize("scale", [1.0, 0.5, 1 / 64])
def test_the_scale_brings_hook_values_to_contributions(scale: float) -> None:
    """FSDP averages over ranks what the loss has multiplied by their number."""
    network, batch, sizes = Network(0), conflicting_batch(0, 6), (2, 4)
    plain = attach(network)
    measure(plain, network, batch, sizes)
    expected = plain.columns([], []).squares * scale**2
    network_again = Network(0)
    scaled = attach(network_again, scale)
    measure(scaled, network_again, batch, sizes)
    torch.testing.assert_close(scaled.columns([], []).squares, expected)


def test_a_second_step_forgets_the_first() -> None:
    network = Network(1)
    estimator = attach(network)
    for seed, sizes in ((1, (3, 5)), (2, (2, 2, 2))):
        batch = conflicting_batch(seed, sum(sizes))
        measure(estimator, network, batch, sizes)
        torch.testing.assert_close(
            estimator.columns([], []).squares,
            one_by_one(network, batch, sizes),
            rtol=1e-12,
            atol=0,
        )
        assert estimator.columns([], []).units.tolist() == [len(sizes)] * 2


def test_a_unit_without_tokens_is_dropped() -> None:
    """Padding micro-batches of dynamic batching: a backward pass, but nothing that counts."""
    network, batch = Network(2), conflicting_batch(2, 6)
    estimator = attach(network)

    def run(part: int | None, loss: Any) -> None:
        accumulate(network, batch, (2, 4), loss, estimator)
        estimator.start_unit(0.0)
        (0.0 * network(batch.inputs).sum()).backward()

    estimator.begin()
    for objective, loss in LOSSES.items():
        estimator.collect(objective, partial(run, loss=loss))
    columns = estimator.columns([], [])
    assert columns.units.tolist() == [2, 2]
    assert columns.mass.tolist() == [6, 6]
    torch.testing.assert_close(
        columns.squares, one_by_one(network, batch, (2, 4)), rtol=1e-12, atol=0
    )


def test_backward_passes_outside_a_step_are_not_counted() -> None:
    network, batch = Network(3), conflicting_batch(3, 4)
    estimator = attach(network)
    accumulate(network, batch, (4,), surrogate)
    measure(estimator, network, batch, (1, 3))
    before = estimator.columns([], []).squares.clone()
    accumulate(network, batch, (4,), surrogate)
    torch.testing.assert_close(estimator.columns([], []).squares, before, rtol=0, atol=0)


def test_activation_checkpointing_runs_a_hook_once() -> None:
    """The forward pre-hook runs again in the recomputation; the gradient hook must not."""
    network, batch, sizes = Network(4), conflicting_batch(4, 7), (3, 4)
    expected = one_by_one(network, batch, sizes)
    estimator = attach(network)
    for layer in network.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    measure(estimator, network, batch, sizes)
    torch.testing.assert_close(estimator.columns([], []).squares, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_of_low_precision_gradients_are_summed_in_float32(dtype: torch.dtype) -> None:
    """In bfloat16 itself the norm of 72 elements would be off by about 1e-3."""
    network, batch, sizes = Network(4), conflicting_batch(4, 8), (3, 5)
    estimator = attach(network.to(dtype))
    low = Batch(batch.inputs.to(dtype), batch.advantages.to(dtype), batch.reference.to(dtype))
    expected = one_by_one(network, low, sizes)
    measure(estimator, network, low, sizes)
    torch.testing.assert_close(estimator.columns([], []).squares, expected, rtol=1e-6, atol=0)


def test_a_micro_batch_that_skips_a_layer_adds_nothing_to_it() -> None:
    """An expert without tokens, a dropped layer: its contribution is zero, and it is a unit."""
    network, batch = Network(5), conflicting_batch(5, 6)
    estimator = attach(network)
    first = batch.part(slice(0, 3))

    def run(part: int | None, loss: Any) -> None:
        value = loss(network(first.inputs), first) / len(batch)
        estimator.start_unit(3.0)
        value.backward()
        estimator.start_unit(3.0)
        network.head(network.input(batch.inputs)).sum().backward()

    estimator.begin()
    for objective, loss in LOSSES.items():
        estimator.collect(objective, partial(run, loss=loss))
    columns = estimator.columns([], [])
    assert columns.units.tolist() == [2, 2]
    assert columns.mass.tolist() == [6, 6]
    for objective, loss in LOSSES.items():
        gradients = gradient_of(network, first, loss, len(batch))
        for block, names in enumerate(blocks_of(network)):
            expected = flat(gradients, names).square().sum() / 3
            torch.testing.assert_close(columns.squares[block, objective], expected)


def test_a_layer_that_no_micro_batch_reaches_is_no_error() -> None:
    network, batch = Network(5), conflicting_batch(5, 6)
    estimator = attach(network)
    estimator.begin()

    def run(part: int | None) -> None:
        estimator.start_unit(6.0)
        network.head(network.layers[0](network.input(batch.inputs))).sum().backward()

    estimator.collect(Objective.PLASTICITY, run)
    squares = estimator.columns([], []).squares[:, Objective.PLASTICITY]
    assert squares[0] > 0
    assert squares[1] == 0


def test_a_gradient_that_comes_in_pieces_is_a_problem() -> None:
    """Two backward passes in what was announced as one unit: norms do not add up."""
    network, batch = Network(6), conflicting_batch(6, 4)
    estimator = attach(network)
    estimator.begin()

    def run(part: int | None) -> None:
        accumulate(network, batch, (4,), surrogate, estimator)
        accumulate(network, batch, (4,), surrogate)

    estimator.collect(Objective.PLASTICITY, run)
    message = estimator.problem
    assert "'layers.0.mlp.up_proj.weight'" in message
    assert "more than once in one of 1 micro-batches" in message
    assert "pcr.variance.estimator=split_half" in message


def test_a_gradient_that_no_hook_saw_is_a_problem() -> None:
    """A kernel that reads a weight without calling the module that owns it."""
    network, batch = Network(7), conflicting_batch(7, 4)
    estimator = attach(network)
    estimator.begin()
    mlp = network.layers[0].mlp
    mlp.forward = lambda hidden: linear(hidden, mlp.up_proj.weight)[:, :WIDTH]

    estimator.collect(
        Objective.STABILITY, lambda part: accumulate(network, batch, (1, 3), kl, estimator)
    )
    message = estimator.problem
    assert "no gradient of 'layers.0.mlp.up_proj.weight' in 2 micro-batches" in message
    assert "pcr.variance.estimator=split_half" in message


def test_a_problem_stays_until_the_next_step() -> None:
    """One of the first pass is not forgotten in the second."""
    network, batch = Network(7), conflicting_batch(7, 4)
    estimator = attach(network)
    estimator.begin()
    estimator.collect(Objective.STABILITY, lambda part: accumulate(network, batch, (4,), kl))
    found = estimator.problem
    estimator.collect(
        Objective.PLASTICITY, lambda part: accumulate(network, batch, (4,), kl, estimator)
    )
    assert found != ""
    assert estimator.problem == found
    estimator.begin()
    assert estimator.problem == ""


def test_after_an_error_the_hooks_are_off() -> None:
    network, batch = Network(8), conflicting_batch(8, 4)
    estimator = attach(network)
    estimator.begin()

    def fail(part: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        estimator.collect(Objective.PLASTICITY, fail)
    accumulate(network, batch, (4,), surrogate)
    assert estimator.columns([], []).squares.tolist() == [[0.0, 0.0]] * 2
