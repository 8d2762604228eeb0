"""A whole step under a weighting of TorchJD, against gradients computed on their own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pcr_plugin.weightings import load
from tests.unit.explicit_vectors import Pair, gramian
from tests.unit.test_update import BETA, Host, alone, batch_of, rule
from tests.unit.toy_host import flat


@pytest.mark.parametrize(("seed", "conflicts"), [(0, 4), (1, 0), (13, 1)])
@pytest.mark.parametrize("name", ["UPGrad", "MGDA", "Mean"])
def test_combined_gradient(seed: int, conflicts: int, name: str) -> None:
    """Where p and s agree, and outside the scope, p + beta s."""
    host, batch = Host(rule(f"torchjd:{name}"), seed=seed), batch_of(seed)
    host.step(batch)
    after, (p_all, s_all) = host.grads(), host.true_gradients(batch)
    inside = {name for block in host.blocks for name in block.parameters}
    for parameter in after.keys() - inside:
        torch.testing.assert_close(after[parameter], p_all[parameter] + BETA * s_all[parameter])
    found = 0
    for block in host.blocks:
        g, p, s = (flat(x, block.parameters) for x in (after, p_all, s_all))
        expected = p + BETA * s
        if p @ s < 0:
            found += 1
            expected = _of_two(name, p, BETA * s)
        torch.testing.assert_close(g, expected, rtol=1e-8, atol=1e-12)
    assert found == conflicts, "the seeds are chosen for all, no and some blocks in conflict"


def _of_two(name: str, first: Tensor, second: Tensor) -> Tensor:
    if name == "UPGrad":  # each without its part against the other
        return sum_of_projections(first, second)
    if name == "Mean":
        return (first + second) / 2
    share = (second @ (second - first)) / (first - second).square().sum()
    share = share.clamp(0, 1)
    return share * first + (1 - share) * second  # MGDA: the shortest in between


def sum_of_projections(first: Tensor, second: Tensor) -> Tensor:
    product = first @ second
    return first - product / (second @ second) * second + second - product / (first @ first) * first


def test_sum_is_a_stock_step() -> None:
    host, stock = Host(rule("torchjd:Sum")), Host(rule("sum"))
    for each in (host, stock):
        each.step(batch_of())
    for name, value in host.grads().items():
        torch.testing.assert_close(value, stock.grads()[name], rtol=0, atol=0)


def test_the_weights_come_from_the_first_rank() -> None:
    """One request a step for all blocks in conflict, whose answer is taken as it comes."""
    asked: list[tuple[int, ...]] = []

    def other(compute: Callable[[], Tensor]) -> Tensor:
        asked.append(tuple(compute().shape))
        return torch.tensor([2.0, 3.0], dtype=torch.float64).expand(4, 2)

    host, batch = Host(rule("torchjd:MGDA"), from_first_rank=other), batch_of()
    host.step(batch)
    assert asked == [(4, 2)]
    p, s = host.true_gradients(batch)
    for block in host.blocks:
        for name in block.parameters:
            torch.testing.assert_close(host.grads()[name], 2 * p[name] + 3 * BETA * s[name])


def test_the_first_rank_computes_what_the_weighting_says() -> None:
    results: list[Tensor] = []

    def first(compute: Callable[[], Tensor]) -> Tensor:
        results.append(compute())
        return alone(compute)

    host, batch = Host(rule("torchjd:UPGrad"), from_first_rank=first), batch_of()
    host.step(batch)
    p, s = host.true_gradients(batch)
    pairs = [
        Pair(flat(p, block.parameters), BETA * flat(s, block.parameters)) for block in host.blocks
    ]
    torch.testing.assert_close(results[0], load("UPGrad")(gramian(pairs)), rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", ["PCGrad", "UPGrad"])
def test_the_random_stream_goes_on_as_in_a_stock_step(name: str) -> None:
    """PCGrad draws the order of its projections."""
    states = []
    for which in (f"torchjd:{name}", "sum"):
        host = Host(rule(which), dropout=0.5)
        torch.manual_seed(11)
        host.step(batch_of())
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_a_single_unit_is_enough_and_no_alpha_is_logged() -> None:
    host = Host(rule("torchjd:UPGrad", preset="robust"))
    metrics = host.step(batch_of(), (12,))
    assert metrics["pcr/degenerate_blocks"] == 0.0
    assert metrics["pcr/conflict_rate"] == 1.0
    assert "pcr/alpha" not in metrics


def test_a_weighting_that_cannot_be_had_stops_the_worker_too() -> None:
    with pytest.raises(ValueError, match=r"update_rule='torchjd:Krum' .*without arguments"):
        Host(rule("torchjd:Krum"))
