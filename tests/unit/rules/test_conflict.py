"""When the rule may project: p.s < 0, a stability gradient worth the name, a clear cosine."""

import pytest
import torch
from torch import Tensor

from pcr_plugin.rules import find_conflicts
from pcr_plugin.rules.conflict import has_stability
from tests.unit.explicit_vectors import SCALES, SEEDS, SIZES, gramian, pair


def table(pp: float, ps: float, ss: float) -> Tensor:
    return torch.tensor([[[pp, ps], [ps, ss]]], dtype=torch.float64)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", SCALES)
def test_a_conflict_is_a_negative_product(seed: int, size: int, scale: float) -> None:
    against = pair(seed, size, -0.1, norm_p=scale, norm_s=scale)
    with_it = pair(seed, size, 0.1, norm_p=scale, norm_s=scale)
    assert find_conflicts(gramian([against, with_it])).tolist() == [True, False]


def test_orthogonal_gradients_are_in_no_conflict() -> None:
    assert not find_conflicts(table(1.0, 0.0, 1.0)).item()
    assert not find_conflicts(table(1.0, -0.0, 1.0)).item()


@pytest.mark.parametrize("scale", SCALES)
def test_a_negligible_stability_gradient_is_rounding_noise(scale: float) -> None:
    """On the first on-policy step the policy is the reference: s is 0 up to rounding."""
    for ratio, expected in ((0.99e-12, False), (1.01e-12, True)):
        block = table(scale, -0.5 * scale * ratio**0.5, scale * ratio)
        assert has_stability(block).item() is expected
        assert find_conflicts(block).item() is expected
        assert find_conflicts(block, gate=False).item() is expected


@pytest.mark.parametrize("pp", [0.0, 1.0])
def test_no_stability_gradient_no_conflict(pp: float) -> None:
    block = table(pp, 0.0, 0.0)
    assert not has_stability(block).item()
    assert not find_conflicts(block).item()
    assert not find_conflicts(block, gate=False).item()


@pytest.mark.parametrize("gate", [True, False])
def test_no_plasticity_gradient_no_conflict(gate: bool) -> None:
    assert not find_conflicts(table(0.0, 0.0, 1.0), gate=gate).item()


@pytest.mark.parametrize("scale_p", SCALES)
@pytest.mark.parametrize("ratio", [1e-5, 1.0, 1e6])
def test_min_cosine_is_a_threshold_on_the_angle(scale_p: float, ratio: float) -> None:
    scale_s = ratio * scale_p
    blocks = [pair(3, 60, cosine, scale_p, scale_s) for cosine in (-0.31, -0.29, 0.31)]
    assert find_conflicts(gramian(blocks), min_cosine=0.3).tolist() == [True, False, False]


def test_min_cosine_of_one_projects_nothing() -> None:
    blocks = [pair(seed, 20, cosine=-1.0) for seed in SEEDS]
    # p.s of opposite vectors can be rounded below -|p||s|, so that exact values are used here.
    opposite = torch.cat([table(4.0, -6.0, 9.0), table(1.0, -1.0, 1.0)])
    assert not find_conflicts(opposite, min_cosine=1.0).any()
    assert find_conflicts(gramian(blocks), min_cosine=0.999).all()


def test_without_the_gate_every_block_with_both_gradients_is_projected() -> None:
    blocks = torch.cat([table(1.0, 0.5, 1.0), table(1.0, 0.0, 1.0), table(1.0, 0.0, 0.0)])
    assert find_conflicts(blocks, gate=False).tolist() == [True, True, False]


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 1)])
def test_numbers_that_are_not_finite_are_no_conflict(
    gate: bool, bad: float, place: tuple[int, int]
) -> None:
    block = table(1.0, -0.5, 1.0)
    block[0, place[0], place[1]] = block[0, place[1], place[0]] = bad
    assert not find_conflicts(block, gate=gate).item()
