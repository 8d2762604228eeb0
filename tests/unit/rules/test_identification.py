"""Where the paper's model stops being the thing that is measured, and what follows.

Each test breaks one assumption of the identification (docs/theory.md) and leaves the others.
"""

import pytest
import torch

from pcr_plugin.rules import bayesian_strength
from tests.unit.explicit_vectors import SEEDS, generator, variance_of_mean
from tests.unit.rules.paper_model import WIDTH, decided, draw, excess_risk


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("prior", [0.2, 5.0])
def test_sampling_noise_of_s_is_not_the_prior_of_p(seed: int, prior: float) -> None:
    """V_sta = 1 is the noise of s, but the true component varies by `prior`: another alpha is
    better, and the measured V_sta does not tell which.
    """
    sample = draw(seed, v_pla=1.0, v_sta=prior)
    found = decided(sample, 1.0, 1.0)
    excess, standard_error = excess_risk(sample, found, 1.0 / (1.0 + prior))
    assert excess < -3 * standard_error


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("share", "better"), [(0.5, 6 / 7), (0.01, 0.12 / 1.12)])
def test_noise_that_prefers_the_axis(seed: int, share: float, better: float) -> None:
    """Traces over 12 directions stand for the axis alone only if no direction is special."""
    sample = draw(seed, v_pla=1.0, v_sta=1.0, noise_along=share)
    assert better == pytest.approx(share * WIDTH / (share * WIDTH + 1))
    excess, standard_error = excess_risk(sample, decided(sample, 1.0, 1.0), better)
    assert excess < -3 * standard_error


def test_more_data_makes_both_gradients_certain_and_leaves_alpha() -> None:
    """Both variances fall as 1 / N, so alpha tends to nothing: it is no confidence that grows."""
    deviations = torch.tensor([2.0, 1.0], dtype=torch.float64)
    alphas, totals = [], []
    for samples in (100, 1000, 10_000):
        noise = torch.randn(2, samples, 60, generator=generator(0), dtype=torch.float64)
        units = (1.0 + deviations[:, None, None] * noise) / samples
        ones = torch.ones(samples, dtype=torch.float64)
        variances = torch.stack([variance_of_mean(of_one, ones) for of_one in units])
        alphas.append(bayesian_strength(variances[None]).item())
        totals.append(variances.sum().item())
    # 60 directions: V is known within sqrt(2 / (60 * 99)) = 2 % at the fewest samples.
    assert alphas == pytest.approx([0.8] * 3, rel=0.02)
    assert [totals[0] / total for total in totals[1:]] == pytest.approx([10, 100], rel=0.1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_noise_of_s_shrinks_the_coefficient(seed: int, noise: float) -> None:
    """The observed s stands for its mean: E||s||^2 = ||E s||^2 + V_sta, so c of Eq. 12 comes out
    too small by 1 + V_sta / ||E s||^2 even if the noises of p and s are independent.
    """
    width, draws = 400, 2000
    source = generator(seed)
    mean = torch.ones(width, dtype=torch.float64)
    p = -0.5 * mean + 0.5 * torch.randn(draws, width, generator=source, dtype=torch.float64)
    s = mean + noise**0.5 * torch.randn(draws, width, generator=source, dtype=torch.float64)
    coefficients = (p * s).sum(dim=1) / s.square().sum(dim=1)
    assert coefficients.mean().item() == pytest.approx(-0.5 / (1 + noise), rel=0.02)
