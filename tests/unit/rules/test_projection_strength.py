"""Theorem 5.1: alpha is the minimum of R(alpha) = alpha^2 V_sta + (1 - alpha)^2 V_pla.

The tests know the risk and what a minimum is, not the formula of Eq. 13.
"""

import pytest
import torch
from torch import Tensor

from pcr_plugin.rules import bayesian_strength
from tests.unit.explicit_vectors import SCALES, SEEDS, generator

GRID = torch.linspace(0, 1, 1001, dtype=torch.float64)
EPSILON = torch.finfo(torch.float64).eps


def strength(v_pla: float, v_sta: float) -> float:
    return bayesian_strength(torch.tensor([[v_pla, v_sta]], dtype=torch.float64)).item()


def risk(alpha: float | Tensor, v_pla: float, v_sta: float) -> float | Tensor:
    return alpha**2 * v_sta + (1 - alpha) ** 2 * v_pla


@pytest.mark.parametrize("v_pla", SCALES)
@pytest.mark.parametrize("v_sta", SCALES)
def test_derivative_of_the_risk_is_zero(v_pla: float, v_sta: float) -> None:
    alpha = strength(v_pla, v_sta)
    derivative = 2 * alpha * v_sta - 2 * (1 - alpha) * v_pla
    # 1 - alpha carries the rounding of alpha near 1, which V_pla multiplies.
    assert abs(derivative) <= 8 * EPSILON * (v_pla + v_sta)


@pytest.mark.parametrize("v_pla", SCALES)
@pytest.mark.parametrize("v_sta", SCALES)
def test_no_other_alpha_has_a_smaller_risk(v_pla: float, v_sta: float) -> None:
    best = risk(strength(v_pla, v_sta), v_pla, v_sta)
    assert torch.all(best <= risk(GRID, v_pla, v_sta) * (1 + 1e-12))


@pytest.mark.parametrize(("v_pla", "v_sta"), [(1.0, 1.0), (3.0, 0.2), (1e-8, 1e8), (5e4, 7e4)])
def test_minimal_risk_is_the_inverse_of_the_joint_precision(v_pla: float, v_sta: float) -> None:
    best = risk(strength(v_pla, v_sta), v_pla, v_sta)
    assert best == pytest.approx(1 / (1 / v_pla + 1 / v_sta), rel=1e-9)
    assert best <= min(risk(1.0, v_pla, v_sta), risk(0.0, v_pla, v_sta))  # PCGrad, plain sum


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("v_pla", "v_sta"), [(1.0, 1.0), (4.0, 0.5), (0.1, 2.0)])
def test_monte_carlo_regression_finds_the_same_retention(
    seed: int, v_pla: float, v_sta: float
) -> None:
    """Least squares of z* on z_obs, from draws of the theorem's model, gives k = 1 - alpha."""
    draws = 200_000
    source = generator(seed)
    latent = v_sta**0.5 * torch.randn(draws, generator=source, dtype=torch.float64)
    noise = v_pla**0.5 * torch.randn(draws, generator=source, dtype=torch.float64)
    observed = latent + noise
    retention = (latent @ observed) / (observed @ observed)
    residual = latent - retention * observed
    standard_error = residual.std() / observed.norm()
    assert abs(1 - strength(v_pla, v_sta) - retention) < 4 * standard_error


@pytest.mark.parametrize("seed", SEEDS)
def test_monte_carlo_risk_is_smallest_at_alpha(seed: int) -> None:
    v_pla, v_sta, draws = 0.7, 1.9, 100_000
    source = generator(seed)
    latent = v_sta**0.5 * torch.randn(draws, generator=source, dtype=torch.float64)
    observed = latent + v_pla**0.5 * torch.randn(draws, generator=source, dtype=torch.float64)
    alphas = torch.linspace(0, 1, 41, dtype=torch.float64)
    risks = torch.stack([((1 - a) * observed - latent).square().mean() for a in alphas])
    assert abs(alphas[risks.argmin()].item() - strength(v_pla, v_sta)) < 0.03  # the grid's step


@pytest.mark.parametrize(
    ("v_pla", "v_sta", "alpha"),
    [
        (0.0, 1.0, 0.0),  # a plasticity gradient without noise is kept
        (1.0, 0.0, 1.0),  # a stability gradient without noise is a wall: PCGrad
        (0.0, 0.0, 1.0),  # no uncertainty at all: PCGrad's assumption
        (1.0, 1e300, 0.0),
        (1e300, 1.0, 1.0),
        (1e-300, 1e-300, 0.5),
    ],
)
def test_limits(v_pla: float, v_sta: float, alpha: float) -> None:
    assert strength(v_pla, v_sta) == pytest.approx(alpha, abs=1e-15)


def test_more_noise_in_the_surrogate_projects_more() -> None:
    noise = torch.logspace(-8, 8, 200, dtype=torch.float64)
    alpha = bayesian_strength(torch.stack([noise, torch.ones_like(noise)], dim=1))
    assert torch.all(alpha.diff() > 0)
    assert torch.all((alpha >= 0) & (alpha <= 1))


def test_exchanging_the_objectives_exchanges_alpha_and_k() -> None:
    noise = torch.logspace(-8, 8, 50, dtype=torch.float64)
    table = torch.stack([noise, noise.flip(0) * 3], dim=1)
    torch.testing.assert_close(
        bayesian_strength(table), 1 - bayesian_strength(table.flip(1)), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("row", [[torch.nan, 1.0], [1.0, torch.nan], [torch.nan, torch.nan]])
def test_an_unknown_variance_gives_an_unknown_alpha(row: list[float]) -> None:
    table = torch.tensor([row, [1.0, 1.0]], dtype=torch.float64)
    unknown, known = bayesian_strength(table).tolist()
    assert unknown != unknown
    assert known == 0.5
