"""In which unit the two variances are compared (`pcr.variance.scale`)."""

import pytest
import torch
from torch import Tensor

from pcr_plugin.statistics import scaled_variances

NAMES = ("absolute", "relative", "beta")


def row(first: float, second: float) -> Tensor:
    return torch.tensor([[first, second]], dtype=torch.float64)


def norms(pp: float, ss: float) -> Tensor:
    return torch.tensor([[[pp, 0.0], [0.0, ss]]], dtype=torch.float64)


def test_absolute_is_v_itself() -> None:
    values = row(3.0, 0.25)
    assert scaled_variances(values, norms(9.0, 1.0), 0.1, "absolute").tolist() == values.tolist()


@pytest.mark.parametrize("beta", [0.0, 1e-3, 1.0, 50.0])
def test_beta_is_the_variance_of_beta_s(beta: float) -> None:
    """Var[beta s] from samples of beta s, not from the square of beta."""
    samples = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = scaled_variances(row(2.0, samples.var().item()), norms(1.0, 1.0), beta, "beta")
    assert scaled[0, 0].item() == 2.0
    assert scaled[0, 1].item() == pytest.approx((beta * samples).var().item(), rel=1e-12)


def test_relative_is_noise_over_debiased_signal() -> None:
    """E||g||^2 = ||E g||^2 + V: of 10, 4 are noise; of 5, 1."""
    scaled = scaled_variances(row(4.0, 1.0), norms(10.0, 5.0), 0.1, "relative")
    assert scaled.tolist() == [[4.0 / 6.0, 1.0 / 4.0]]


def test_relative_stays_finite_for_pure_noise() -> None:
    """More noise than norm: the signal counts as practically nothing, and the order is kept."""
    scaled = scaled_variances(row(11.0, 5.0), norms(10.0, 10.0), 0.1, "relative")
    assert torch.isfinite(scaled).all()
    assert scaled[0, 0] > 1e10
    assert scaled[0, 1].item() == 1.0


def test_relative_of_a_gradient_that_is_zero() -> None:
    assert scaled_variances(row(0.0, 0.0), norms(0.0, 0.0), 0.1, "relative").tolist() == [[0, 0]]


@pytest.mark.parametrize("name", NAMES)
def test_a_negative_estimate_counts_as_no_variance(name: str) -> None:
    scaled = scaled_variances(row(-1e-9, -3.0), norms(2.0, 2.0), 0.1, name)
    assert scaled.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_estimate_stays_missing(name: str) -> None:
    for column in range(2):
        values = row(1.0, 1.0)
        values[0, column] = torch.nan
        missing = scaled_variances(values, norms(2.0, 2.0), 0.1, name).isnan()
        assert missing[0].tolist() == [column == 0, column == 1]


@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_itself_is_not_changed(name: str) -> None:
    values = row(-1.0, 2.0)
    scaled_variances(values, norms(2.0, 2.0), 0.1, name)
    assert values.tolist() == [[-1.0, 2.0]]
