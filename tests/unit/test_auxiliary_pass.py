"""A loss that is neither objective's: its gradient is added to what the rule makes of both."""

import pytest
import torch
from torch import Tensor

from tests.unit.test_update import BETA, SIZES, Host, batch_of, rule
from tests.unit.toy_host import Batch, accumulate, gradient_of, kl, surrogate


def own(output: Tensor, batch: Batch) -> Tensor:
    """What the model adds; as large as the others."""
    return 0.7 * (output - 1).square().sum()


def step(host: Host, batch: Batch, *, adds: bool) -> dict[str, float]:
    """With the pass of the model's own loss, or without."""
    return host.update.run(
        BETA,
        host.two_forward(
            host.runner(batch, SIZES, kl),
            host.runner(batch, SIZES, surrogate),
            (lambda: accumulate(host.network, batch, SIZES, own)) if adds else None,
        ),
    )


@pytest.mark.parametrize("name", ["pcr", "sum"])
def test_it_is_added_in_the_scope_and_outside(name: str) -> None:
    plain, adding = Host(rule(name)), Host(rule(name))
    batch = batch_of()
    step(plain, batch, adds=False)
    step(adding, batch, adds=True)
    added = gradient_of(adding.network, batch, own, len(batch))
    for parameter, gradient in plain.grads().items():
        expected = gradient + added[parameter]
        torch.testing.assert_close(adding.grads()[parameter], expected, rtol=1e-12, atol=1e-14)


def test_metrics_know_nothing_of_it() -> None:
    plain, adding = Host(rule(log_blocks=True)), Host(rule(log_blocks=True))
    expected, found = (
        step(host, batch_of(), adds=adds) for host, adds in ((plain, False), (adding, True))
    )
    assert found.keys() == expected.keys()
    assert any(name.endswith("/alpha") for name in found)
    for name in found.keys() - {"pcr/seconds"}:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, equal_nan=True)


def test_all_passes_draw_the_same_dropout() -> None:
    """And the stream ends where a host's own step ends."""
    host, batch = Host(rule("sum"), dropout=0.5), batch_of()
    torch.manual_seed(11)
    step(host, batch, adds=True)
    after, ours = torch.get_rng_state(), host.grads()
    host.network.zero_grad()
    torch.manual_seed(11)
    accumulate(
        host.network,
        batch,
        SIZES,
        lambda out, part: surrogate(out, part) + BETA * kl(out, part) + own(out, part),
    )
    assert torch.equal(after, torch.get_rng_state())
    for name, gradient in host.grads().items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-12, atol=1e-14)
