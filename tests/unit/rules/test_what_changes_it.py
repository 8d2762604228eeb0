"""What does change the decision; docs/theory.md lists it beside what does not."""

import pytest
import torch

from pcr_plugin.rules import decide
from tests.unit.explicit_vectors import SEEDS, gramian, normal, pair, variance_of_mean
from tests.unit.rules.noisy_block import (
    BETA,
    SIZE,
    Block,
    conflicting_block,
    decision,
    gradient,
)

# `absolute` under rescaling of one loss: test_absolute_does_care in test_invariances.py.


def odds(alpha: torch.Tensor) -> float:
    return (alpha / (1 - alpha)).item()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss", ["surrogate", "kl"])
def test_beta_does_care_how_the_rewards_are_scaled(seed: int, loss: str) -> None:
    """`beta` fixes the unit of the KL alone, and only while beta goes with it."""
    block = conflicting_block(seed)
    before = decision(block, rule="pcr", scale="beta").alpha
    if loss == "surrogate":
        changed = Block(10 * block.pla, block.sta, block.sizes)
    else:
        changed = Block(block.pla, 10 * block.sta, block.sizes)
    after = decision(changed, rule="pcr", scale="beta").alpha
    factor = 100.0 if loss == "surrogate" else 0.01
    assert odds(after) / odds(before) == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", ["absolute", "relative", "beta"])
def test_parameters_that_are_stretched(seed: int, scale: str) -> None:
    """phi with theta = A phi: gradients become A'g, and the step on theta is A A' times ours.

    Weights of p and s that did not depend on A would give A A' g; they do, as A changes angles
    and traces. So adapters are not projected as the full matrix would be.
    """
    block = conflicting_block(seed)
    stretch = torch.linspace(0.2, 3.0, SIZE, dtype=torch.float64)
    stretched = Block(block.pla * stretch, block.sta * stretch, block.sizes)
    expected = gradient(block, rule="pcr", scale=scale) * stretch
    found = gradient(stretched, rule="pcr", scale=scale)
    assert (found - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("seed", SEEDS)
def test_two_blocks_taken_as_one(seed: int) -> None:
    """One block in conflict and one that agrees: together there is one sign and one alpha."""
    conflicting, agreeing = pair(seed, 20, -0.8), pair(seed + 50, 20, 0.5)
    merged = [torch.cat(parts) for parts in zip(conflicting, agreeing, strict=True)]
    none = torch.zeros(3, 2, dtype=torch.float64)
    tables = [gramian([vectors]) for vectors in (conflicting, agreeing, (merged[0], merged[1]))]
    found = decide("pcgrad", torch.cat(tables), none, BETA)
    assert found.conflict.tolist() == [True, False, True]
    apart, _, together = found.weights[:, 1].tolist()
    # c of the whole is the mean of both, weighted with ||s||^2: (0.8 - 0.5) / 2.
    assert (apart, together) == pytest.approx((0.8, 0.15))


@pytest.mark.parametrize("seed", SEEDS)
def test_units_taken_together(seed: int) -> None:
    """Larger micro-batches measure the same V with fewer units: the same on average (see
    statistics/test_variance.py), another number in every step, and so another alpha.
    """
    block = conflicting_block(seed)
    first = torch.tensor([[1.0, 1.0, 0, 0, 0], [0, 0, 1.0, 0, 0], [0, 0, 0, 1.0, 1.0]]).double()
    fewer = Block(first @ block.pla, first @ block.sta, first @ block.sizes)
    torch.testing.assert_close(fewer.pla.sum(dim=0), block.pla.sum(dim=0))
    before = decision(block, rule="pcr", scale="absolute").alpha
    after = decision(fewer, rule="pcr", scale="absolute").alpha
    assert (after - before).abs().item() > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_counting_sequences_instead_of_tokens(seed: int) -> None:
    """Weights of units are those of the loss: V of a token mean is not V of a sequence mean."""
    block = conflicting_block(seed)
    sequences = torch.ones_like(block.sizes)
    of_tokens = variance_of_mean(block.pla, block.sizes)
    of_sequences = variance_of_mean(block.pla, sequences)
    assert abs(of_sequences / of_tokens - 1).item() > 1e-2


@pytest.mark.parametrize("seed", SEEDS)
def test_an_optimizer_that_rescales_coordinates_undoes_the_right_angle(seed: int) -> None:
    """Hard projection leaves g.s = 0, but Adam's step is not along g."""
    p, s = pair(seed, 50, -0.6)
    weights = decide("pcgrad", gramian([(p, s)]), torch.zeros(1, 2).double(), BETA).weights[0]
    g = weights[0] * p + weights[1] * s
    assert abs(g @ s).item() < 1e-14
    parameter = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=1.0)
    for past in (normal(seed + 9, 50), g):
        parameter.grad = past / past.norm()
        before = parameter.detach().clone()
        adam.step()
    step = parameter.detach() - before
    assert abs(step @ s).item() > 0.01 * (step.norm() * s.norm()).item()
