"""Eq. 10: V is the trace of the covariance of the gradient, whatever the units weigh."""

import numpy
import pytest
import torch
from torch import Tensor

from pcr_plugin.statistics import variance_of_total
from tests.unit.explicit_vectors import SCALES, SEEDS, generator, normal, variance_of_mean


def estimate(units: Tensor, sizes: Tensor) -> Tensor:
    """V of (..., M, n) contributions g_m with (M,) sizes n_m."""
    shares = sizes / sizes.sum()
    squares = (units.square().sum(dim=-1) / shares).sum(dim=-1)
    total = units.sum(dim=-2).square().sum(dim=-1)
    return variance_of_total(squares, total, torch.tensor(float(len(sizes))))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sizes", [[1, 1], [1, 2, 3, 4], [1000, 1], [5] * 12])
def test_zero_when_all_units_agree(seed: int, scale: float, sizes: list[int]) -> None:
    weights = torch.tensor(sizes, dtype=torch.float64)
    gradient = scale * normal(seed, 40)
    units = (weights / weights.sum())[:, None] * gradient
    assert abs(estimate(units, weights)) <= 1e-13 * gradient.square().sum()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("units", [2, 3, 20])
@pytest.mark.parametrize("scale", SCALES)
def test_equal_units_give_the_sample_covariance_of_numpy(
    seed: int, units: int, scale: float
) -> None:
    """g is the mean of the estimates M g_m, whose covariance numpy knows."""
    contributions = scale * normal(seed, units, 15)
    estimates = units * contributions.numpy()
    covariance_of_mean = numpy.cov(estimates, rowvar=False, ddof=1) / units
    expected = numpy.trace(covariance_of_mean)
    equal = torch.ones(units, dtype=torch.float64)
    assert estimate(contributions, equal).item() == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sizes", [[1, 2], [1, 5, 30], [7, 7, 1, 1, 2]])
def test_weighted_units_give_their_weighted_spread(seed: int, sizes: list[int]) -> None:
    weights = torch.tensor(sizes, dtype=torch.float64)
    units = normal(seed, len(sizes), 11)
    torch.testing.assert_close(estimate(units, weights), variance_of_mean(units, weights))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sizes", [[1, 1, 1], [1, 2, 5], [1, 20]])
def test_unbiased_also_with_unequal_units(seed: int, sizes: list[int]) -> None:
    """Monte Carlo: tokens x_i with mean mu and covariance C; g is their mean over N tokens.

    V must average to tr C / N, the true trace of the covariance of g, and not depend on mu.
    """
    repeats, width = 20_000, 3
    deviations = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    mean = torch.tensor([1.0, -3.0, 0.5], dtype=torch.float64)
    source, tokens = generator(seed), sum(sizes)
    units = torch.stack(
        [
            (
                torch.randn(repeats, n, width, generator=source, dtype=torch.float64) * deviations
                + mean
            ).sum(dim=1)
            / tokens
            for n in sizes
        ],
        dim=1,
    )
    values = estimate(units, torch.tensor(sizes, dtype=torch.float64))
    truth = (deviations.square().sum() / tokens).item()
    assert abs(values.mean().item() - truth) < 4 * values.std().item() / repeats**0.5


@pytest.mark.parametrize("units", [0.0, 1.0])
def test_one_unit_says_nothing_about_its_spread(units: float) -> None:
    value = variance_of_total(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor(units))
    assert value.isnan().all()


def test_units_may_be_counted_per_block() -> None:
    squares = torch.tensor([6.0, 6.0, 6.0])
    value = variance_of_total(squares, torch.full((3,), 2.0), torch.tensor([1.0, 2.0, 5.0]))
    assert value[0].isnan()
    assert value[1:].tolist() == [4.0, 1.0]


def test_a_number_that_is_not_finite_is_not_hidden() -> None:
    squares = torch.tensor([torch.nan, torch.inf, 3.0])
    value = variance_of_total(squares, torch.ones(3), torch.tensor(3.0))
    assert torch.isfinite(value).tolist() == [False, False, True]
