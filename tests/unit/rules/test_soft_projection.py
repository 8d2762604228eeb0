"""Eq. 12 and 14-16 against explicit vectors.

The combined gradient is pinned down by two conditions, and by nothing of the implementation: its
part perpendicular to s is that of p, and its part along s is (1 - alpha) times that of p.
"""

import pytest
import torch
from torch import Tensor

from pcr_plugin.rules import soft_projection
from tests.unit.explicit_vectors import SCALES, SEEDS, SIZES, combined, gramian, pair

BETA = 0.04
IN_CONFLICT = torch.tensor([True])
AGREEING = torch.tensor([False])


def along(vector: Tensor, axis: Tensor) -> Tensor:
    unit = axis / axis.norm()
    return (vector @ unit) * unit


def project(
    p: Tensor, s: Tensor, alpha: float, *, beta: float = BETA, floor: bool = False
) -> tuple[Tensor, Tensor]:
    """The combined gradient of one block in conflict, and its weights."""
    strength = torch.tensor([alpha], dtype=torch.float64)
    weights = soft_projection(gramian([(p, s)]), strength, IN_CONFLICT, beta, stability_floor=floor)
    return combined(weights, [(p, s)])[0], weights[0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_exactly_alpha_of_the_conflicting_component_is_removed(
    seed: int, size: int, scale: float, alpha: float
) -> None:
    p, s = pair(seed, size, cosine=-0.6, norm_p=3.0, norm_s=scale)
    g, _ = project(p, s, alpha)
    torch.testing.assert_close(g - along(g, s), p - along(p, s), rtol=0, atol=1e-13)
    torch.testing.assert_close(along(g, s), (1 - alpha) * along(p, s), rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale_p", SCALES)
@pytest.mark.parametrize("scale_s", SCALES)
def test_full_strength_leaves_nothing_against_stability(scale_p: float, scale_s: float) -> None:
    p, s = pair(5, 50, cosine=-0.3, norm_p=scale_p, norm_s=scale_s)
    g, _ = project(p, s, alpha=1.0)
    assert abs(g @ s) <= 1e-13 * scale_p * scale_s


def test_no_strength_leaves_the_surrogate_and_drops_beta_s() -> None:
    p, s = pair(6, 20, cosine=-0.8)
    g, weights = project(p, s, alpha=0.0)
    torch.testing.assert_close(g, p, rtol=0, atol=0)
    assert weights.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("cosine", [0.9, 0.0, -0.9])
@pytest.mark.parametrize("floor", [False, True])
def test_without_a_conflict_it_is_the_stock_gradient(cosine: float, floor: bool) -> None:
    block = pair(7, 30, cosine)
    alpha = torch.tensor([0.7], dtype=torch.float64)
    weights = soft_projection(gramian([block]), alpha, AGREEING, BETA, stability_floor=floor)
    assert weights.tolist() == [[1.0, BETA]]


@pytest.mark.parametrize("bad", [0.0, torch.nan, torch.inf])
def test_a_block_that_is_not_projected_never_sees_its_own_division(bad: float) -> None:
    table = torch.full((1, 2, 2), bad, dtype=torch.float64)
    alpha = torch.tensor([torch.nan], dtype=torch.float64)
    for floor in (False, True):
        weights = soft_projection(table, alpha, AGREEING, BETA, stability_floor=floor)
        assert weights.tolist() == [[1.0, BETA]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("norm_s", SCALES)
@pytest.mark.parametrize("beta", [0.0, 1e-3, 10.0])
def test_the_floor_keeps_at_least_beta(seed: int, norm_s: float, beta: float) -> None:
    p, s = pair(seed, 40, cosine=-0.5, norm_s=norm_s)
    for alpha in (0.0, 0.2, 1.0):
        bare, without = project(p, s, alpha, beta=beta)
        g, weights = project(p, s, alpha, beta=beta, floor=True)
        assert weights[1] >= beta
        assert weights[1] == max(beta, without[1].item())
        # In terms of gradients: never less pull towards the reference than stock GRPO has.
        assert g @ s >= (p + beta * s) @ s - 1e-12 * norm_s * max(1.0, beta * norm_s)
        assert g @ s >= bare @ s - 1e-12 * norm_s


def test_the_floor_is_continuous_where_it_starts() -> None:
    p, s = pair(8, 40, cosine=-0.5)
    starts_at = BETA * (s @ s).item() / -(p @ s).item()  # alpha with beta_eff = beta
    _, below = project(p, s, starts_at * (1 - 1e-9), floor=True)
    _, above = project(p, s, starts_at * (1 + 1e-9), floor=True)
    assert below[1] == BETA
    assert above[1] > BETA
    assert above[1] - below[1] < 1e-9


def test_blocks_do_not_influence_each_other() -> None:
    blocks = [pair(seed, 12, cosine) for seed, cosine in enumerate((-0.9, 0.4, -0.2, -0.5))]
    alpha = torch.tensor([0.1, 0.9, 0.5, 1.0], dtype=torch.float64)
    conflict = torch.tensor([True, False, True, True])
    together = soft_projection(gramian(blocks), alpha, conflict, BETA, stability_floor=False)
    for i, block in enumerate(blocks):
        alone = soft_projection(
            gramian([block]), alpha[i : i + 1], conflict[i : i + 1], BETA, stability_floor=False
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=0)
