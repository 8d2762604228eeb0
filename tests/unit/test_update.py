"""A whole step on a toy host, against gradients and variances computed on their own."""

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pcr_plugin.blocks import Block, partition
from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings, resolve
from pcr_plugin.estimators import MicroBatchEstimator, RunPass
from pcr_plugin.passes import TwoForward
from pcr_plugin.update import TwoGradientUpdate
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from tests.unit.explicit_vectors import variance_of_mean
from tests.unit.toy_host import (
    Batch,
    Loss,
    Network,
    accumulate,
    conflicting_batch,
    cut,
    flat,
    gradient_of,
    kl,
    surrogate,
)

BETA = 0.3
SIZES = (2, 5, 1, 4)
FromFirstRank = Callable[[Callable[[], Tensor]], Tensor]


def rule(name: str = "pcr", **settings: Any) -> UpdateRule:
    resolved = resolve(name, PCRSettings(**settings))
    assert resolved is not None
    return resolved


def alone(compute: Callable[[], Tensor]) -> Tensor:
    """What the first rank does when there is no other."""
    return compute()


class Host:
    """The toy network with an update on it."""

    def __init__(
        self,
        which: UpdateRule,
        *,
        seed: int = 0,
        dropout: float = 0.0,
        from_first_rank: FromFirstRank = alone,
        sum_over_ranks: Callable[[Tensor], Tensor] = lambda table: table,
        gather: Callable[[list[str]], list[str]] = list,
        device_module: Any = torch.random,
    ) -> None:
        self.network = Network(seed, layers=4, dropout=dropout)
        names = [name for name, _ in self.network.named_parameters()]
        self.blocks = partition(names, which.settings.scope, which.settings.block)
        self.gradients = Fsdp2Gradients(self.network, self.blocks)
        self.estimator = MicroBatchEstimator(
            self.gradients, len(self.blocks), 1.0, torch.device("cpu")
        )
        self.update = TwoGradientUpdate(
            which,
            self.blocks,
            self.gradients,
            self.estimator,
            sum_over_ranks,
            device_module,
            from_first_rank=from_first_rank,
            gather=gather,
        )

    def runner(self, batch: Batch, sizes: tuple[int, ...], loss: Loss) -> RunPass:
        return lambda part: accumulate(self.network, batch, sizes, loss, self.estimator)

    def step(self, batch: Batch, sizes: tuple[int, ...] = SIZES) -> dict[str, float]:
        self.network.zero_grad()
        stability, plasticity = (self.runner(batch, sizes, loss) for loss in (kl, surrogate))
        return self.update.run(BETA, self.two_forward(stability, plasticity))

    def two_forward(
        self, stability: RunPass, plasticity: RunPass, own: Callable[[], None] | None = None
    ) -> TwoForward:
        return TwoForward(self.gradients, self.estimator, torch.random, stability, plasticity, own)

    def grads(self) -> dict[str, Tensor]:
        return {n: p.grad for n, p in self.network.named_parameters() if p.grad is not None}

    def true_gradients(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """p and s by a single backward pass each."""
        return (
            gradient_of(self.network, batch, surrogate, len(batch)),
            gradient_of(self.network, batch, kl, len(batch)),
        )

    def variance(self, batch: Batch, block: Block, loss: Loss) -> Tensor:
        units = [
            flat(gradient_of(self.network, part, loss, len(batch)), block.parameters)
            for part in cut(batch, SIZES)
        ]
        return variance_of_mean(torch.stack(units), torch.tensor(SIZES, dtype=torch.float64))


def batch_of(seed: int = 0) -> Batch:
    return conflicting_batch(seed, sum(SIZES))


@pytest.mark.parametrize(("seed", "conflicts"), [(0, 4), (1, 0), (13, 1)])
@pytest.mark.parametrize("name", ["pcr", "pcgrad", "soft", "sum"])
def test_combined_gradient(seed: int, conflicts: int, name: str) -> None:
    """Outside the scope p + beta s; inside by Eq. 15, told from its two defining conditions."""
    host = Host(rule(name, alpha=0.35 if name == "soft" else None), seed=seed)
    batch = batch_of(seed)
    host.step(batch)
    after, (p_all, s_all) = host.grads(), host.true_gradients(batch)
    inside = {name for block in host.blocks for name in block.parameters}
    for parameter in after.keys() - inside:
        torch.testing.assert_close(after[parameter], p_all[parameter] + BETA * s_all[parameter])
    found = 0
    for block in host.blocks:
        g, p, s = (flat(x, block.parameters) for x in (after, p_all, s_all))
        found += int(p @ s < 0)
        if p @ s >= 0 or name == "sum":
            torch.testing.assert_close(g, p + BETA * s)
            continue
        v_pla, v_sta = (host.variance(batch, block, loss) for loss in (surrogate, kl))
        removed = {"pcr": v_pla / (v_pla + v_sta), "pcgrad": 1.0, "soft": 0.35}[name]
        torch.testing.assert_close(g @ s, (1 - removed) * (p @ s), rtol=1e-9, atol=1e-14)
        axis = s / s.norm()
        torch.testing.assert_close(g - (g @ axis) * axis, p - (p @ axis) * axis)
    assert found == conflicts, "the seeds are chosen for all, no and some blocks in conflict"


def test_micro_batches_do_not_change_the_two_gradients() -> None:
    """Only V depends on how the batch is cut, and `pcgrad` does not read it."""
    results = []
    for sizes in ((12,), (6, 6), SIZES, (1,) * 12):
        host = Host(rule("pcgrad"))
        host.step(batch_of(), sizes)
        results.append(host.grads())
    for other in results[1:]:
        for name, value in results[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-12, atol=1e-14)


def test_both_passes_draw_the_same_dropout_and_the_stream_goes_on_as_in_a_stock_step() -> None:
    host = Host(rule("sum"), dropout=0.5)
    batch = batch_of()
    torch.manual_seed(11)
    host.step(batch)
    after_ours, ours = torch.get_rng_state(), host.grads()
    host.network.zero_grad()
    torch.manual_seed(11)
    accumulate(host.network, batch, SIZES, lambda out, b: surrogate(out, b) + BETA * kl(out, b))
    assert torch.equal(after_ours, torch.get_rng_state())
    for name, value in host.grads().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-14)


def test_observing_leaves_the_random_stream_where_it_was() -> None:
    host = Host(rule("observe"), dropout=0.5)
    before = torch.get_rng_state()
    assert host.update.observing(lambda: host.step(batch_of()))["pcr/active"] == 1.0
    assert torch.equal(before, torch.get_rng_state())


def test_observe_leaves_the_surrogate_s_gradient_and_reports_pcr_s_alpha() -> None:
    watching, acting, batch = Host(rule("observe")), Host(rule("pcr")), batch_of()
    seen, done = watching.step(batch), acting.step(batch)
    inside = {name for block in watching.blocks for name in block.parameters}
    p, _ = watching.true_gradients(batch)
    for name in inside:
        torch.testing.assert_close(watching.grads()[name], p[name])
    for name in ("alpha", "conflict_rate", "cos", "var_pla", "var_sta"):
        assert seen[f"pcr/{name}"] == pytest.approx(done[f"pcr/{name}"])
    assert seen["pcr/beta_eff"] == BETA


def test_on_the_reference_there_is_no_conflict_and_the_average_learns_nothing() -> None:
    """The first on-policy step: pi = pi_ref, so s = 0."""
    host = Host(rule(preset="robust"))
    batch = batch_of()
    with torch.no_grad():
        reference = host.network(batch.inputs)
    metrics = host.step(Batch(batch.inputs, batch.advantages, reference))
    assert metrics["pcr/conflict_rate"] == 0.0
    assert metrics["pcr/degenerate_blocks"] == 0.0
    assert host.update.average.state_dict()["sums"] == {}
    p, _ = host.true_gradients(batch)
    for name, value in host.grads().items():
        torch.testing.assert_close(value, p[name], rtol=1e-9, atol=1e-14)


def test_a_single_unit_falls_back_and_is_counted_and_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host, batch = Host(rule("pcr")), batch_of()
    with caplog.at_level(logging.WARNING, logger="pcr_plugin"):
        for _ in range(2):
            metrics = host.step(batch, (12,))
            assert metrics["pcr/degenerate_blocks"] == len(host.blocks)
            assert metrics["pcr/conflict_rate"] == 0.0
    assert len(caplog.records) == 1
    assert "micro-batches" in caplog.text
    p, s = host.true_gradients(batch)
    for name, value in host.grads().items():
        torch.testing.assert_close(value, p[name] + BETA * s[name])


def test_with_an_average_a_single_unit_uses_the_past() -> None:
    settings = {"variance": VarianceSettings(ema=0.9)}
    host, batch = Host(rule("pcr", **settings)), batch_of()
    first = host.step(batch)
    second = host.step(batch, (12,))
    assert second["pcr/degenerate_blocks"] == 0.0
    assert second["pcr/alpha"] == pytest.approx(first["pcr/alpha"])


def test_a_skipped_step_leaves_the_average_as_it_was() -> None:
    host = Host(rule(preset="robust"))
    host.step(batch_of(0))
    before = host.update.average.state_dict()
    host.step(batch_of(1))
    assert host.update.average.state_dict() != before
    host.update.forget_step()
    assert host.update.average.state_dict() == before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_spoils_its_own_block_only(bad: float) -> None:
    """veRL skips such a step by the norm; the average must not take it in."""
    host, batch = Host(rule(preset="robust")), batch_of()
    expected = Host(rule(preset="robust"))
    expected.step(batch)
    run = host.runner(batch, SIZES, surrogate)
    spoilt = dict(host.network.named_parameters())["layers.0.mlp.up_proj.bias"]

    def plasticity(part: int | None) -> None:
        run(part)
        assert spoilt.grad is not None
        spoilt.grad[0] = bad

    metrics = host.update.run(BETA, host.two_forward(host.runner(batch, SIZES, kl), plasticity))
    assert metrics["pcr/degenerate_blocks"] == 1.0
    assert "layers.0.mlp" not in host.update.average.state_dict()["sums"]
    assert not torch.isfinite(host.grads()["layers.0.mlp.up_proj.bias"]).all()
    for name, value in expected.grads().items():
        if not name.startswith("layers.0.mlp."):
            torch.testing.assert_close(host.grads()[name], value)


def test_metrics_per_block_have_unique_names() -> None:
    host = Host(rule(log_blocks=True))
    metrics = host.step(batch_of())
    cosines = [name for name in metrics if name.endswith("/cos") and "/block/" in name]
    assert cosines == [f"pcr/block/{i}.mlp/cos" for i in range(4)]


def test_two_towers_with_the_same_layer_numbers_get_full_names() -> None:
    """`visual.blocks.0.mlp` and `layers.0.mlp` would both be `0.mlp`."""
    names = [f"{tower}.layers.{i}.mlp.w" for tower in ("text", "sound") for i in range(2)]
    blocks = partition(names, "mlp")
    assert len({block.label for block in blocks}) < len(blocks)
    update = Host(rule()).update
    twice = TwoGradientUpdate(
        rule(),
        blocks,
        update._gradients,
        update._estimator,
        lambda table: table,
        torch.random,
        from_first_rank=alone,
        gather=list,
    )
    assert twice._labels == [block.name for block in blocks]
