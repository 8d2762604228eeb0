"""Two backward passes through one graph give what two forward passes give."""

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pcr_plugin.blocks import partition
from pcr_plugin.estimators import (
    Estimator,
    MicroBatchEstimator,
    SplitHalfEstimator,
    UnitColumns,
    counted_gramian,
    without_mix,
)
from pcr_plugin.gradients import Local
from pcr_plugin.passes import GradientPair, SharedForward, TwoForward
from pcr_plugin.verl.fsdp2_shared import Fsdp2SharedGradients
from tests.unit.toy_host import Batch, Loss, Network, conflicting_batch, cut, kl, surrogate

BETA = 0.3
SIZES = (2, 5, 1, 4)
HALVES = {0: (0, 2), 1: (1, 3), None: (0, 1, 2, 3)}


class Host:
    """The toy network with both ways to two gradients."""

    def __init__(self, *, recomputes: bool = False, dtype: torch.dtype = torch.float64) -> None:
        self.network = Network(seed=0, layers=4, dropout=0.3)
        if recomputes:
            for layer in self.network.layers:  # as veRL asks for
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        self.network.to(dtype)
        names = [name for name, _ in self.network.named_parameters()]
        blocks = partition(names, "mlp", "module")
        self.gradients = Fsdp2SharedGradients(self.network, blocks)
        self.units = MicroBatchEstimator(self.gradients, len(blocks), 1.0, torch.device("cpu"))
        self.halves = SplitHalfEstimator(self.gradients, len(blocks), lambda: (0.5, 0.5), True)
        self.batch = conflicting_batch(3, sum(SIZES))
        self.batch = Batch(*(t.to(dtype) for t in vars(self.batch).values()))

    def micro_batches(self, part: int | None) -> list[Batch]:
        return [list(cut(self.batch, SIZES))[index] for index in HALVES[part]]

    def announce(self, micro_batch: Batch) -> None:
        if self.units.is_measuring:
            self.units.start_unit(float(len(micro_batch)))

    def two_forward(self, estimator: Estimator) -> GradientPair:
        def runner(loss: Loss) -> Any:
            def run(part: int | None) -> None:
                for micro_batch in self.micro_batches(part):
                    self.announce(micro_batch)
                    loss(self.network(micro_batch.inputs), micro_batch).backward()

            return run

        passes = TwoForward(self.gradients, estimator, torch.random, runner(kl), runner(surrogate))
        return passes(BETA)

    def shared_forward(
        self, estimator: Estimator, *, combined: bool, beta: float = BETA
    ) -> GradientPair:
        def run(part: int | None) -> None:
            for micro_batch in self.micro_batches(part):
                with passes.micro_batch():
                    self.announce(micro_batch)
                    output = self.network(micro_batch.inputs)
                    s, p = (loss(output, micro_batch) for loss in (kl, surrogate))
                    with passes.stability_sweep() as leaves:
                        torch.autograd.backward(s, retain_graph=True, inputs=leaves)
                    (p + beta * s if combined else p).backward()

        passes = SharedForward(
            self.gradients, estimator, run, combined=combined, all_equal=lambda number: True
        )
        return passes(beta)

    def rest(self) -> dict[str, Tensor]:
        return {
            name: parameter.grad.clone()
            for name, parameter in self.network.named_parameters()
            if parameter.grad is not None and "mlp" not in name
        }


def clones(shards: Local) -> list[Tensor]:
    return [shard.clone() for shard in shards if shard is not None]


class Found(NamedTuple):
    """What one of the ways leaves behind; `held` is in the scope, with the host."""

    s: list[Tensor]
    held: list[Tensor]
    rest: dict[str, Tensor]
    random_state: Tensor
    gramian: Tensor
    columns: UnitColumns


def both(host: Host, estimator: Estimator, *, combined: bool) -> list[Found]:
    """The reference, and one forward pass."""
    found = []
    for passes in (host.two_forward, partial(host.shared_forward, combined=combined)):
        host.network.zero_grad()
        torch.manual_seed(7)
        pair = passes(estimator)
        assert not pair.problem and not estimator.problem
        held = host.gradients.read()
        gramian = counted_gramian(host.gradients, [held, pair.stability], 4)
        columns = estimator.columns(held, pair.stability)
        kept = clones(pair.stability), clones(held), host.rest(), torch.get_rng_state()
        found.append(Found(*kept, without_mix(gramian, pair.mix), columns))
    assert len(found[0].s) == len(found[1].held) == 16
    return found


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_same_bits_as_two_forward_passes(dtype: torch.dtype, recomputes: bool) -> None:
    """Of both gradients and of the units' norms; with dropout, and the same stream after it."""
    host = Host(recomputes=recomputes, dtype=dtype)
    two, shared = both(host, host.units, combined=False)
    assert all(map(torch.equal, two.s, shared.s)) and all(map(torch.equal, two.held, shared.held))
    assert torch.equal(two.random_state, shared.random_state)
    assert torch.equal(two.columns.squares, shared.columns.squares)
    assert two.rest.keys() == shared.rest.keys() and len(two.rest) == 4
    for name, gradient in two.rest.items():
        error = float((shared.rest[name] - gradient).norm())
        assert error <= 20 * torch.finfo(dtype).eps * float(gradient.norm()), name


@pytest.mark.parametrize("recomputes", [False, True])
def test_combined_signals_are_another_basis(recomputes: bool) -> None:
    """s to the last bit, p + beta s, the rest, and every product that the halves give."""
    host = Host(recomputes=recomputes)
    two, shared = both(host, host.halves, combined=True)
    assert all(map(torch.equal, two.s, shared.s))
    assert torch.equal(two.random_state, shared.random_state)
    for mixed, p, s in zip(shared.held, two.held, two.s, strict=True):
        torch.testing.assert_close(mixed, p + BETA * s, rtol=1e-12, atol=1e-13)
    assert two.rest.keys() == shared.rest.keys() and len(two.rest) == 4
    for name, gradient in two.rest.items():
        torch.testing.assert_close(shared.rest[name], gradient, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(shared.gramian, two.gramian, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(shared.columns.squares, two.columns.squares, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(shared.columns.cross, two.columns.cross, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("combined", [False, True])
def test_without_a_weight_of_the_kl(combined: bool) -> None:
    """beta = 0: s is measured, and nothing of it is anywhere."""
    host = Host()
    torch.manual_seed(7)
    expected = host.two_forward(host.halves)
    s, p = clones(expected.stability), clones(host.gradients.read())
    host.network.zero_grad()
    torch.manual_seed(7)
    pair = host.shared_forward(host.halves, combined=combined, beta=0.0)
    assert all(map(torch.equal, s, clones(pair.stability)))
    assert all(map(torch.equal, p, clones(host.gradients.read())))


def test_units_that_need_p_itself_take_no_combined_signals() -> None:
    host = Host()
    assert not host.units.is_linear and host.halves.is_linear
    with pytest.raises(AssertionError, match="p itself"):
        host.shared_forward(host.units, combined=True)


def test_a_failed_backward_pass_leaves_nothing_behind() -> None:
    """The next step is as if it had not been."""
    host = Host()
    torch.manual_seed(7)
    expected = clones(host.shared_forward(host.units, combined=False).stability)
    host.network.zero_grad()

    def fail(*_: Any) -> None:
        raise RuntimeError("meant to fail")

    handle = host.network.head.register_full_backward_hook(fail)
    with pytest.raises(RuntimeError, match="meant to fail"):
        host.shared_forward(host.units, combined=False)
    handle.remove()
    assert not host.units.is_measuring
    host.network.zero_grad()
    torch.manual_seed(7)
    again = host.shared_forward(host.units, combined=False)
    assert all(map(torch.equal, expected, clones(again.stability)))


def test_ranks_with_other_gradients_are_a_problem() -> None:
    host = Host()
    passes = SharedForward(
        host.gradients, host.halves, lambda part: None, combined=False, all_equal=lambda _: False
    )
    assert "pcr.passes=two_forward" in passes(BETA).problem
