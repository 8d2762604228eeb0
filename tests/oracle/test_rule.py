"""The oracle's own rule, against the statements of the paper."""

import pytest
import torch
from torch import Tensor

from tests.oracle.gradients import Unit
from tests.oracle.rule import PAPER, ROBUST, BlockResult, Rule, step
from tests.oracle.variances import variance

WIDTH, BETA = 40, 0.05
# Within float64 rounding of sums over some dozens of numbers.
EXACT = 1e-12


def _units(seed: int, product: float, sizes: tuple[float, ...] = (3.0, 5.0, 4.0)) -> list[Unit]:
    """Units whose gradients add up to p and s with a given sign of p.s, each with its noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(WIDTH, generator=generator, dtype=torch.float64)

    p, s, units = normal(), normal(), []
    s = s - p * (p @ s) / (p @ p) + product * p
    noise = [(0.3 * normal(), 0.5 * normal()) for _ in sizes]
    for size, (p_noise, s_noise) in zip(sizes, noise, strict=True):
        share = size / sum(sizes)
        p_m, s_m = share * p + p_noise, share * s + s_noise
        units.append(Unit({"inside": p_m, "outside": p_m}, {"inside": s_m, "outside": s_m}, size))
    return units


def _resolve(units: list[Unit], rule: Rule) -> tuple[Tensor, Tensor, Tensor, BlockResult]:
    """p, s, the combined gradient and the numbers of the only block."""
    result = step(units, {"block": ["inside"]}, rule, BETA)
    p = sum((u.plasticity["inside"] for u in units), torch.zeros(WIDTH, dtype=torch.float64))
    s = sum((u.stability["inside"] for u in units), torch.zeros(WIDTH, dtype=torch.float64))
    return p, s, result.gradient["inside"], result.blocks["block"]


def _named(name: str) -> Rule:
    return Rule(name=name)


@pytest.mark.parametrize("product", [-0.8, 0.8])
def test_outside_the_scope_beta_s_is_added(product: float) -> None:
    units = _units(0, product)
    p, s, _, _ = _resolve(units, PAPER)
    gradient = step(units, {"block": ["inside"]}, PAPER, BETA).gradient
    torch.testing.assert_close(gradient["outside"], p + BETA * s, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("rule", [PAPER, ROBUST, *map(_named, ("pcgrad", "sum", "upgrad", "mgda"))])
def test_without_conflict_beta_s_is_added(rule: Rule) -> None:
    p, s, combined, block = _resolve(_units(1, 0.8), rule)
    assert not block.conflict
    torch.testing.assert_close(combined, p + BETA * s, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_conflict_keeps_the_share_k_of_the_parallel_part(seed: int) -> None:
    """Eq. 14 with the retention k of Eq. 13."""
    units = _units(seed, -0.8)
    p, s, combined, block = _resolve(units, PAPER)
    pla, sta = block.variances or (0.0, 0.0)
    k = (1 / pla) / (1 / pla + 1 / sta)
    parallel = s * (p @ s) / (s @ s)
    assert block.conflict
    torch.testing.assert_close(combined, (p - parallel) + k * parallel, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_has_the_least_risk(seed: int) -> None:
    """Theorem 5.1: R(alpha) = alpha^2 V_sta + (1 - alpha)^2 V_pla."""
    block = _resolve(_units(seed, -0.8), PAPER)[3]
    pla, sta = block.variances or (0.0, 0.0)

    def risk(alpha: float) -> float:
        return alpha**2 * sta + (1 - alpha) ** 2 * pla

    others = torch.linspace(0, 1, 101).tolist()
    assert risk(block.alpha) <= min(map(risk, others)) + EXACT


def test_pcgrad_leaves_nothing_against_s() -> None:
    _, s, combined, _ = _resolve(_units(2, -0.8), Rule(name="pcgrad"))
    assert float(combined @ s) == pytest.approx(0, abs=EXACT)


def test_soft_removes_a_fixed_share() -> None:
    p, s, combined, _ = _resolve(_units(2, -0.8), Rule(name="soft", alpha=0.25))
    assert float(combined @ s) == pytest.approx(0.75 * float(p @ s))


@pytest.mark.parametrize("seed", range(5))
def test_upgrad_is_the_sum_of_the_nearest_directions_against_neither(seed: int) -> None:
    p, s, combined, block = _resolve(_units(seed, -0.8), Rule(name="upgrad"))
    b = BETA * s
    cone = torch.stack([p, b])
    # Both are reached from outside the cone, so each lies on the face of the other.
    nearest = [v - other * (v @ other) / (other @ other) for v, other in ((p, b), (b, p))]
    assert all(float((cone @ direction).min()) > -EXACT for direction in nearest)
    torch.testing.assert_close(combined, nearest[0] + nearest[1], rtol=EXACT, atol=EXACT)
    assert block.plasticity_weight > 1 and block.beta_effective > BETA


@pytest.mark.parametrize("seed", range(5))
def test_mgda_is_shorter_than_every_other_convex_combination(seed: int) -> None:
    p, s, combined, _ = _resolve(_units(seed, -0.8), Rule(name="mgda"))
    others = [
        float((share * p + (1 - share) * BETA * s).norm()) for share in torch.linspace(0, 1, 1001)
    ]
    assert float(combined.norm()) <= min(others) + EXACT
    assert float(combined.norm()) == pytest.approx(min(others), rel=1e-3)


def test_floor_is_never_weaker_than_beta() -> None:
    weak = Rule(name="soft", alpha=1e-6, floor=True)
    p, s, combined, _ = _resolve(_units(2, -0.8), weak)
    torch.testing.assert_close(combined, p + BETA * s, rtol=EXACT, atol=EXACT)


def test_without_gate_agreement_is_projected_too() -> None:
    p, s, combined, block = _resolve(_units(1, 0.8), Rule(name="pcr", gate=False))
    assert block.beta_effective < 0
    removed = block.alpha * float(p @ s)
    assert float((p - combined) @ s) == pytest.approx(removed)


def test_scale_beta_measures_beta_s() -> None:
    """Rescaling s by beta and comparing absolutely is the same."""
    units = _units(3, -0.8)
    scaled = [
        Unit(u.plasticity, {n: BETA * g for n, g in u.stability.items()}, u.size) for u in units
    ]
    ours = _resolve(units, Rule(name="pcr", scale="beta"))[3]
    assert ours.alpha == pytest.approx(_resolve(scaled, PAPER)[3].alpha)


def test_moving_average_is_debiased() -> None:
    """Of equal steps it is the step; of different ones it leans to the past."""
    first, second = _units(4, -0.8), _units(5, -0.8)
    blocks, rule = {"block": ["inside"]}, Rule(name="pcr", decay=0.9)
    once = step(first, blocks, rule, BETA)
    again = step(first, blocks, rule, BETA, [once])
    assert again.blocks["block"].alpha == pytest.approx(once.blocks["block"].alpha)
    other = step(second, blocks, rule, BETA, [once]).blocks["block"].alpha
    alone = step(second, blocks, rule, BETA).blocks["block"].alpha
    assert min(alone, once.blocks["block"].alpha) < other
    assert other < max(alone, once.blocks["block"].alpha)


def test_variance_is_zero_when_all_units_agree() -> None:
    mean = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)
    shares = [0.5, 0.3, 0.2]
    assert variance([w * mean for w in shares], shares) == pytest.approx(0, abs=EXACT)


def test_variance_is_the_formula_of_the_specification() -> None:
    units = _units(6, -0.8)
    contributions = [u.plasticity["inside"] for u in units]
    shares = [u.size / 12 for u in units]
    total = torch.stack(contributions).sum(dim=0)
    squares = sum(float(g.square().sum()) / w for g, w in zip(contributions, shares, strict=True))
    expected = (squares - float(total @ total)) / (len(shares) - 1)
    assert variance(contributions, shares) == pytest.approx(expected)


def test_variance_is_unbiased_for_units_of_unequal_size() -> None:
    """x_m ~ N(mu, I / n_m): the mean over all has the covariance I / N, of trace WIDTH / N."""
    generator = torch.Generator().manual_seed(8)
    sizes = torch.tensor([2.0, 3.0, 7.0, 20.0], dtype=torch.float64)
    shares = (sizes / sizes.sum()).tolist()
    draws = 400
    estimates = []
    for _ in range(draws):
        noise = torch.randn(len(sizes), WIDTH, generator=generator, dtype=torch.float64)
        means = 3.0 + noise / sizes.sqrt()[:, None]
        estimates.append(variance([w * x for w, x in zip(shares, means, strict=True)], shares))
    # Relative standard deviation of one estimate: sqrt(2 / (3 * 40)) = 0.13; of the mean: 0.0065.
    assert sum(estimates) / draws == pytest.approx(WIDTH / float(sizes.sum()), rel=0.03)


def test_across_halves_is_the_product_of_two_independent_means() -> None:
    units = _units(7, -0.8, sizes=(2.0, 3.0))
    first, second = ((u.plasticity["inside"], u.stability["inside"]) for u in units)
    expected = float(first[0] @ second[1] + second[0] @ first[1]) / (2 * 0.4 * 0.6)
    assert _resolve(units, PAPER)[3].unbiased == pytest.approx(expected)
