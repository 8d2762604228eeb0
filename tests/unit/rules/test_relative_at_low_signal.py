"""`relative` when a gradient is mostly noise: noise over signal, and not noise over norm.

||g||^2 estimates signal plus V. V / ||g||^2 tends to 1 for both gradients as the signals vanish,
and alpha to 1/2 whatever the signals are.
"""

import pytest
import torch
from torch import Tensor

from pcr_plugin.rules import bayesian_strength
from pcr_plugin.statistics import scaled_variances
from tests.unit.explicit_vectors import generator

NOISE = torch.tensor([3.0, 0.5], dtype=torch.float64)


def strength(variances: Tensor, norms: Tensor) -> Tensor:
    """alpha of (B, 2) variances and squared norms."""
    scaled = scaled_variances(variances, torch.diag_embed(norms), 0.1, "relative")
    return bayesian_strength(scaled)


def at_signal(signal: Tensor) -> tuple[float, float]:
    """alpha with V known, and that of V / ||g||^2."""
    norms = (signal + NOISE)[None]
    return strength(NOISE[None], norms).item(), bayesian_strength(NOISE[None] / norms).item()


@pytest.mark.parametrize("level", [1.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("ratio", [0.1, 1.0, 4.0])
def test_alpha_stays_where_the_two_ratios_put_it(level: float, ratio: float) -> None:
    """Signal-to-noise ratios x and `ratio` x: alpha = ratio / (1 + ratio) at any level x."""
    alpha, saturated = at_signal(level * NOISE * torch.tensor([1.0, ratio], dtype=torch.float64))
    # Taking the noise out of the norm leaves a difference with 1 / level of its rounding.
    assert alpha == pytest.approx(ratio / (1 + ratio), abs=1e-14 / level)
    if level <= 1e-4:
        assert saturated == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("level", [1e-2, 1e-4, 1e-8])
def test_one_gradient_that_fades_is_given_up(level: float) -> None:
    """alpha -> 1 with the surrogate's signal, -> 0 with the KL's; both as the level."""
    steady = torch.tensor(1.0, dtype=torch.float64)
    of_p, _ = at_signal(NOISE * torch.stack([level * steady, steady]))
    of_s, _ = at_signal(NOISE * torch.stack([steady, level * steady]))
    # The difference behind a signal of 1e-8 of the noise has lost 8 of 16 digits.
    assert of_p == pytest.approx(1 - level, abs=level**2 + 1e-15)
    assert of_s == pytest.approx(level, rel=level + 1e-6)


def measured(ratios: list[float], width: int, units: int, draws: int) -> tuple[Tensor, Tensor]:
    """(draws, 2) V and ||g||^2 from `units` units around means of given signal-to-noise ratios."""
    source = generator(1)
    noise = torch.randn(draws, 2, units, width, generator=source, dtype=torch.float64)
    mean = (torch.tensor(ratios, dtype=torch.float64) / units).sqrt()[:, None, None]
    parts = (mean + noise) / units  # tr Cov of the total is width / units
    total = parts.sum(dim=2)
    squared = total.square().sum(dim=-1)
    spread = (parts - total[:, :, None] / units).square().sum(dim=(-1, -2))
    return spread * units / (units - 1), squared


def test_measured_variances_find_it_too() -> None:
    """Signals of a tenth and four tenths of the noise, resolved over 5000 directions."""
    variances, norms = measured([0.1, 0.4], width=5000, units=8, draws=60)
    assert (variances.mean(dim=0) * 8 / 5000).tolist() == pytest.approx([1, 1], rel=0.01)
    alpha = strength(variances, norms)
    # One step knows a signal of 0.1 within sqrt(2 / 5000 * 8 / 7) = 0.021 of the noise.
    assert alpha.median().item() == pytest.approx(0.8, abs=0.02)
    saturated = bayesian_strength(variances / norms)
    assert saturated.median().item() == pytest.approx(1.4 / 2.5, abs=0.01)


def test_the_logged_ratio_of_noise_alone_is_one() -> None:
    """`snr_pla` and `snr_sta` are ||g||^2 / V, with the noise in the norm."""
    variances, norms = measured([0.0, 0.5], width=2000, units=8, draws=50)
    assert (norms / variances).mean(dim=0).tolist() == pytest.approx([1.0, 1.5], rel=0.03)


def test_without_any_signal_alpha_is_a_throw_of_dice() -> None:
    """Each estimate of the signal is negative in half of the steps, and then counts as nothing."""
    variances, norms = measured([0.0, 0.0], width=500, units=8, draws=1000)
    fades = norms <= variances
    alpha = strength(variances, norms)
    assert alpha[fades[:, 0] & ~fades[:, 1]].min() > 1 - 1e-6
    assert alpha[fades[:, 1] & ~fades[:, 0]].max() < 1e-6
    # Only a block of which neither gradient is seen, a quarter of all, has no other answer.
    neither = fades.all(dim=1)
    assert neither.double().mean().item() == pytest.approx(0.25, abs=0.05)
    assert alpha[neither].tolist() == pytest.approx([0.5] * int(neither.sum()), abs=0.1)
