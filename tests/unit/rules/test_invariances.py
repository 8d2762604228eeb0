"""What must not change the decision, from units of the gradients to the weights.

Each test starts from explicit units (the g_m of Eq. 10), changes them in a way that says nothing
about the conflict, and compares whole combined gradients.
"""

from itertools import pairwise

import pytest
import torch

from pcr_plugin.rules import decide
from pcr_plugin.statistics import local_gramian, scaled_variances, variance_of_total
from tests.unit.explicit_vectors import SEEDS, gramian, normal
from tests.unit.rules.noisy_block import (
    BETA,
    SIZE,
    UNITS,
    Block,
    conflicting_block,
    decision,
    gradient,
)

SCALES = ("absolute", "relative", "beta")
RULES = ("pcr", "pcgrad", "soft")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("factor", [1e-8, 1e-3, 1e3, 1e8])
def test_rescaling_both_losses_rescales_the_gradient(
    seed: int, rule: str, scale: str, factor: float
) -> None:
    block = conflicting_block(seed)
    larger = Block(factor * block.pla, factor * block.sta, block.sizes)
    torch.testing.assert_close(
        gradient(larger, rule=rule, scale=scale),
        factor * gradient(block, rule=rule, scale=scale),
        rtol=1e-10,
        atol=1e-12 * factor,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", SCALES)
def test_rotating_the_parameters_rotates_the_gradient(seed: int, rule: str, scale: str) -> None:
    block = conflicting_block(seed)
    rotation = torch.linalg.qr(normal(seed + 300, SIZE, SIZE))[0]
    rotated = Block(block.pla @ rotation, block.sta @ rotation, block.sizes)
    torch.testing.assert_close(
        gradient(rotated, rule=rule, scale=scale),
        gradient(block, rule=rule, scale=scale) @ rotation,
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("factor", [1e-2, 7.0, 100.0])
def test_the_size_of_a_unit_is_a_share(seed: int, scale: str, factor: float) -> None:
    block = conflicting_block(seed)
    counted_otherwise = Block(block.pla, block.sta, factor * block.sizes)
    torch.testing.assert_close(
        gradient(counted_otherwise, rule="pcr", scale=scale),
        gradient(block, rule="pcr", scale=scale),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("factor", [1e-4, 10.0, 1e4])
@pytest.mark.parametrize("loss", ["surrogate", "kl"])
def test_relative_does_not_care_how_one_loss_is_scaled(seed: int, factor: float, loss: str) -> None:
    block = conflicting_block(seed)
    before = decision(block, rule="pcr", scale="relative").alpha
    if loss == "surrogate":
        changed = Block(factor * block.pla, block.sta, block.sizes)
    else:
        changed = Block(block.pla, factor * block.sta, block.sizes)
    after = decision(changed, rule="pcr", scale="relative").alpha
    torch.testing.assert_close(after, before, rtol=1e-9, atol=0)
    # Projection onto the complement of s does not see the length of s.
    torch.testing.assert_close(
        gradient(changed, rule="pcr", scale="relative"),
        (factor if loss == "surrogate" else 1.0) * gradient(block, rule="pcr", scale="relative"),
        rtol=1e-9,
        atol=1e-12 * factor,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss", ["surrogate", "kl"])
def test_absolute_does_care(seed: int, loss: str) -> None:
    """The paper's alpha depends on the units of the rewards; SPEC names it a known property."""
    block = conflicting_block(seed)
    before = decision(block, rule="pcr", scale="absolute").alpha.item()
    if loss == "surrogate":
        changed = Block(10 * block.pla, block.sta, block.sizes)
    else:
        changed = Block(block.pla, 10 * block.sta, block.sizes)
    after = decision(changed, rule="pcr", scale="absolute").alpha.item()
    # V grows a hundredfold with the gradient, and with it the odds alpha / (1 - alpha).
    odds = (after / (1 - after)) / (before / (1 - before))
    assert odds == pytest.approx(100.0 if loss == "surrogate" else 0.01, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("factor", [1e-4, 10.0, 1e4])
def test_beta_does_not_care_how_beta_and_the_kl_share_a_factor(seed: int, factor: float) -> None:
    """beta L_sta is one loss: writing it as (beta / f) (f L_sta) changes nothing."""
    block = conflicting_block(seed)
    shared = Block(block.pla, factor * block.sta, block.sizes)
    torch.testing.assert_close(
        gradient(shared, rule="pcr", scale="beta", beta=BETA / factor),
        gradient(block, rule="pcr", scale="beta", beta=BETA),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cuts", [[12], [1, 2, 3], [0, 24], [7, 7, 20]])
def test_splitting_a_block_over_ranks_changes_nothing(seed: int, cuts: list[int]) -> None:
    """Cuts at an end or twice at one place are ranks with an empty shard."""
    block = conflicting_block(seed)
    p, s = block.pla.sum(dim=0), block.sta.sum(dim=0)
    bounds = [0, *cuts, SIZE]
    shards = [slice(a, b) for a, b in pairwise(bounds)]
    device = torch.device("cpu")
    of_ranks = [local_gramian([[p[i]], [s[i]]], [0], 1, device) for i in shards]
    torch.testing.assert_close(sum(of_ranks), gramian([(p, s)]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("cuts", [[12], [1, 2, 3], [0, 24]])
def test_alpha_of_a_block_whose_shards_lie_on_several_ranks(
    seed: int, scale: str, cuts: list[int]
) -> None:
    """Norms of units and products add up over shards; what is made of the sums is the same."""
    block = conflicting_block(seed)
    shares = (block.sizes / block.sizes.sum())[:, None]
    table = torch.zeros(1, 2, 2, dtype=torch.float64)
    squares = torch.zeros(2, dtype=torch.float64)
    for a, b in pairwise([0, *cuts, SIZE]):
        units = torch.stack([block.pla[:, a:b], block.sta[:, a:b]])
        table += gramian([units.sum(dim=1)])
        squares += (units.square() / shares).sum(dim=(1, 2))
    counted = torch.tensor(float(UNITS))
    variances = variance_of_total(squares, table[0].diagonal(), counted)[None]
    sharded = decide("pcr", table, scaled_variances(variances, table, BETA, scale), BETA)
    whole = decision(block, rule="pcr", scale=scale)
    torch.testing.assert_close(sharded.alpha, whole.alpha, rtol=1e-10, atol=0)
    torch.testing.assert_close(sharded.weights, whole.weights, rtol=1e-10, atol=0)
