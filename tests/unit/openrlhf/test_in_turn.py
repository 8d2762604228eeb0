"""Two gradients collected micro-batch by micro-batch, against plain autograd on a toy host."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pcr_plugin.blocks import Block, partition
from pcr_plugin.estimators import MicroBatchEstimator, Objective, SplitHalfEstimator
from pcr_plugin.openrlhf.gradients import ZeroGradients
from pcr_plugin.passes import InTurn
from tests.unit.toy_host import Batch, Network, conflicting_batch, cut, gradient_of, kl, surrogate

BETA = 0.3
SIZES = (2, 5, 1, 4)


class ToySlots:
    """Implements `Slots` on a network in one process, in float64."""

    counted = True
    device = torch.device("cpu")

    def __init__(self, network: Network) -> None:
        named = list(network.named_parameters())
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.given: list[Tensor | None] = []

    def expect(self) -> None:
        assert all(parameter.grad is None for parameter in self.parameters)

    def collect(self) -> list[Tensor | None]:
        shards = [None if p.grad is None else p.grad.flatten().clone() for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        return shards

    def put(self, shards: Sequence[Tensor | None]) -> None:
        self.given = list(shards)


class Host:
    """The toy network, whose own loop goes over the micro-batches."""

    def __init__(self) -> None:
        self.network = Network(seed=0)
        self.slots = ToySlots(self.network)
        self.blocks: tuple[Block, ...] = partition(self.slots.names, "mlp", "module")
        self.gradients = ZeroGradients(self.slots, self.blocks)
        self.batch = conflicting_batch(3, sum(SIZES))

    def step(self, passes: InTurn, estimator: MicroBatchEstimator | SplitHalfEstimator) -> None:
        for micro_batch in cut(self.batch, SIZES):
            passes.start_micro_batch()
            if isinstance(estimator, MicroBatchEstimator):
                estimator.start_unit(float(len(micro_batch)))
            output = self.network(micro_batch.inputs)
            self.slots.expect()
            with passes.backward(Objective.STABILITY, BETA):
                kl(output, micro_batch).backward(retain_graph=True)
            self.slots.expect()
            with passes.backward(Objective.PLASTICITY, 1.0):
                surrogate(output, micro_batch).backward()

    def gradient(self, loss: object, batch: Batch | None = None) -> list[Tensor]:
        found = gradient_of(self.network, batch or self.batch, loss, 1)  # type: ignore[arg-type]
        return [found[name].flatten() for name in self.slots.names]

    def in_scope(self, shards: Sequence[Tensor]) -> list[Tensor]:
        inside = {name for block in self.blocks for name in block.parameters}
        return [t for name, t in zip(self.slots.names, shards, strict=True) if name in inside]


def assert_close(found: Sequence[Tensor | None], expected: Sequence[Tensor]) -> None:
    for left, right in zip(found, expected, strict=True):
        assert left is not None
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-13)


def estimators(host: Host, kind: str) -> MicroBatchEstimator | SplitHalfEstimator:
    if kind == "split_half":
        halves = (3 / 12, 9 / 12)
        return SplitHalfEstimator(host.gradients, len(host.blocks), lambda: halves, True)
    return MicroBatchEstimator(host.gradients, len(host.blocks), 1.0, host.slots.device)


@pytest.mark.parametrize("kind", ["micro_batch", "split_half"])
def test_both_gradients_are_those_of_the_whole_batch_in_every_step(kind: str) -> None:
    host = Host()
    estimator = estimators(host, kind)
    passes = InTurn(host.gradients, estimator)
    p, s = host.gradient(surrogate), host.gradient(kl)
    for _ in range(2):
        host.step(passes, estimator)
        pair = passes(BETA)
        assert not estimator.problem and not pair.problem and pair.mix == 0
        assert_close(pair.stability, host.in_scope(s))
        assert_close(host.gradients.read(), host.in_scope(p))
        host.gradients.hand_over()
        whole = dict(zip(host.slots.names, host.slots.given, strict=True))
        for name, p_part, s_part in zip(host.slots.names, p, s, strict=True):
            inside = any(name in block.parameters for block in host.blocks)
            assert_close([whole[name]], [p_part if inside else p_part + BETA * s_part])


def test_units_are_the_micro_batches() -> None:
    host = Host()
    estimator = estimators(host, "micro_batch")
    passes = InTurn(host.gradients, estimator)
    host.step(passes, estimator)
    passes(BETA)
    columns = estimator.columns([], [])
    assert columns.units.tolist() == [4.0] * len(host.blocks)
    assert columns.mass.tolist() == [12.0] * len(host.blocks)
    for objective, loss in ((Objective.PLASTICITY, surrogate), (Objective.STABILITY, kl)):
        expected = torch.zeros(len(host.blocks), dtype=torch.float64)
        for micro_batch in cut(host.batch, SIZES):
            found = gradient_of(host.network, micro_batch, loss, 1)
            for index, block in enumerate(host.blocks):
                square = sum(found[name].square().sum() for name in block.parameters)
                expected[index] += square / len(micro_batch)
        torch.testing.assert_close(columns.squares[:, objective], expected)


def test_halves_are_every_other_micro_batch() -> None:
    host = Host()
    estimator = estimators(host, "split_half")
    passes = InTurn(host.gradients, estimator)
    host.step(passes, estimator)
    pair = passes(BETA)
    columns = estimator.columns(host.gradients.read(), pair.stability)
    parts = list(cut(host.batch, SIZES))
    expected = torch.zeros(len(host.blocks), dtype=torch.float64)
    for half, share in ((parts[0::2], 3 / 12), (parts[1::2], 9 / 12)):
        found = [gradient_of(host.network, part, surrogate, 1) for part in half]
        for index, block in enumerate(host.blocks):
            for name in block.parameters:
                expected[index] += sum(g[name] for g in found).square().sum() / share
    torch.testing.assert_close(columns.squares[:, Objective.PLASTICITY], expected)
    assert columns.units.tolist() == [2.0] * len(host.blocks)
