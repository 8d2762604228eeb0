"""Taking gradients out, and writing the combined one, on a module that is not sharded."""

import pytest
import torch
from torch import Tensor, nn

from pcr_plugin.blocks import partition
from pcr_plugin.estimators import counted_gramian
from pcr_plugin.gradients import combine_
from pcr_plugin.verl.fsdp2_gradients import Fsdp2Gradients
from tests.unit.toy_host import Network, conflicting_batch, flat, gradient_of, kl, surrogate

WEIGHTS = [(1.0, 0.25), (1.0, -0.5)]


def hold(network: Network) -> Fsdp2Gradients:
    names = [name for name, _ in network.named_parameters()]
    return Fsdp2Gradients(network, partition(names, "mlp"))


def backward(network: Network, loss: object = surrogate) -> dict[str, Tensor]:
    batch = conflicting_batch(0, 5)
    gradients = gradient_of(network, batch, loss, 5)
    for name, parameter in network.named_parameters():
        before = 0 if parameter.grad is None else parameter.grad
        parameter.grad = gradients[name] + before
    return gradients


@pytest.fixture
def network() -> Network:
    return Network(0)


def held(network: nn.Module) -> dict[str, Tensor | None]:
    return {n: None if p.grad is None else p.grad.clone() for n, p in network.named_parameters()}


def test_reading_gives_views_in_the_order_of_the_blocks(network: Network) -> None:
    gradients = hold(network)
    values = backward(network)
    read = gradients.read()
    assert gradients.block_of == [0] * 4 + [1] * 4
    for name, shard, block in zip(gradients.names, read, gradients.block_of, strict=True):
        assert name.startswith(f"layers.{block}.mlp.")
        assert shard is not None
        torch.testing.assert_close(shard, values[name], rtol=0, atol=0)
    assert read[0] is not None
    read[0].zero_()
    written = dict(network.named_parameters())[gradients.names[0]].grad
    assert written is not None
    assert not written.any()


def test_they_are_with_their_parameters_also_where_there_are_none(network: Network) -> None:
    """A mini-batch without any advantage leaves no p; on a GPU s is there and not on the CPU."""
    gradients = hold(network.to("meta"))
    members = dict(network.named_parameters())
    s = [torch.zeros_like(members[name]) for name in gradients.names]
    assert gradients.read() == [None] * len(s)
    assert gradients.device == torch.device("meta")
    assert counted_gramian(gradients, [gradients.read(), s], 2).device == gradients.device


def test_taking_moves_the_scope_out_and_nothing_else(network: Network) -> None:
    gradients = hold(network)
    values = backward(network)
    taken = gradients.take()
    for name, value in held(network).items():
        if name in gradients.names:
            assert value is None
        else:
            torch.testing.assert_close(value, values[name], rtol=0, atol=0)
    for name, shard in zip(gradients.names, taken, strict=True):
        torch.testing.assert_close(shard, values[name], rtol=0, atol=0)


def test_what_was_taken_is_not_overwritten_by_the_next_pass(network: Network) -> None:
    gradients = hold(network)
    backward(network)
    taken = gradients.take()
    copies = [shard.clone() for shard in taken if shard is not None]
    backward(network, kl)
    for shard, copy in zip(taken, copies, strict=True):
        torch.testing.assert_close(shard, copy, rtol=0, atol=0)


def test_adding_to_nothing_does_not_alias(network: Network) -> None:
    gradients = hold(network)
    backward(network)
    taken = gradients.take()
    copies = [shard.clone() for shard in taken if shard is not None]
    gradients.add(taken, [1.0] * len(taken))
    for shard in gradients.read():
        assert shard is not None
        shard.zero_()
    for shard, copy in zip(taken, copies, strict=True):
        torch.testing.assert_close(shard, copy, rtol=0, atol=0)


def test_only_the_rest_is_scaled(network: Network) -> None:
    gradients = hold(network)
    values = backward(network)
    gradients.keep_rest(0.125)
    gradients.finish_rest()
    for name, value in held(network).items():
        factor = 1.0 if name in gradients.names else 0.125
        torch.testing.assert_close(value, factor * values[name], rtol=0, atol=0)


def test_frozen_parameters_are_left_alone(network: Network) -> None:
    network.head.requires_grad_(False)
    trainable = [n for n, p in network.named_parameters() if p.requires_grad]
    gradients = Fsdp2Gradients(network, partition(trainable, "all"))
    assert not any(name.startswith("head.") for name in gradients.names)
    gradients.keep_rest(2.0)


@pytest.mark.parametrize("weights", [WEIGHTS, [(0.5, 2.0), (0.0, 1.0)], [(1.0, 0.0), (1.0, 0.0)]])
def test_every_block_gets_its_own_weights(
    network: Network, weights: list[tuple[float, float]]
) -> None:
    gradients = hold(network)
    s_values = backward(network, kl)
    s = gradients.take()
    network.zero_grad()
    p_values = backward(network)
    combine_(gradients, s, weights)
    after = held(network)
    for name, block in zip(gradients.names, gradients.block_of, strict=True):
        w_pla, w_sta = weights[block]
        torch.testing.assert_close(after[name], w_pla * p_values[name] + w_sta * s_values[name])
    outside = [name for name in after if name not in gradients.names]
    torch.testing.assert_close(
        flat({n: after[n] for n in outside}, outside),
        flat(p_values, outside),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("missing", ["p", "s", "both"])
def test_a_parameter_that_one_loss_does_not_reach(network: Network, missing: str) -> None:
    gradients = hold(network)
    s_values = backward(network, kl)
    s = gradients.take()
    network.zero_grad()
    p_values = backward(network)
    name = gradients.names[0]
    if missing in ("s", "both"):
        s[0] = None
    if missing in ("p", "both"):
        dict(network.named_parameters())[name].grad = None
    combine_(gradients, s, WEIGHTS)
    after = held(network)[name]
    expected = {"p": WEIGHTS[0][1] * s_values[name], "s": p_values[name], "both": None}[missing]
    if expected is None:
        assert after is None
    else:
        torch.testing.assert_close(after, expected)


def test_a_rank_without_parameters_in_the_scope_changes_nothing(network: Network) -> None:
    """A pipeline stage that holds the output layer alone, whose blocks are elsewhere."""
    gradients = Fsdp2Gradients(network, [])
    values = backward(network)
    s = gradients.take()
    assert list(gradients.block_of) == list(gradients.names) == s == gradients.read() == []
    combine_(gradients, s, WEIGHTS)
    for name, value in held(network).items():
        torch.testing.assert_close(value, values[name], rtol=0, atol=0)
