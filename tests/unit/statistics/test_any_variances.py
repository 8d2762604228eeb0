"""Any units, norms and variances, from 1e-30 to 1e30."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcr_plugin.rules import decide
from pcr_plugin.statistics import scaled_variances, variance_of_total

SCALES = ("absolute", "relative", "beta")
powers = st.floats(-30, 30).map(lambda exponent: 10.0**exponent)
# Weights and lengths of units that are a gradient together.
unit_lists = st.lists(st.tuples(st.floats(0.1, 10), st.floats(-10, 10)), min_size=2, max_size=6)


@given(units=unit_lists, size=powers)
@settings(derandomize=True, max_examples=200)
def test_a_variance_is_that_of_its_units(units: list[tuple[float, float]], size: float) -> None:
    """Of one number per unit, against the weighted spread itself; it scales with the square."""
    total_weight = sum(weight for weight, _ in units)
    shares = [weight / total_weight for weight, _ in units]
    parts = [share * value * size for share, (_, value) in zip(shares, units, strict=True)]
    whole = sum(parts)
    squares = sum(part**2 / share for part, share in zip(parts, shares, strict=True))
    spread = sum(
        share * (part / share - whole) ** 2 for part, share in zip(parts, shares, strict=True)
    )
    found = variance_of_total(
        torch.tensor([squares], dtype=torch.float64),
        torch.tensor([whole**2], dtype=torch.float64),
        torch.tensor(len(units)),
    )
    expected = spread / (len(units) - 1)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12 * squares)


@pytest.mark.parametrize("scale", SCALES)
@given(
    norms=st.tuples(powers, powers), noises=st.tuples(powers, powers), beta=st.just(0.0) | powers
)
@settings(derandomize=True, max_examples=200)
def test_an_alpha_comes_out(
    scale: str, norms: tuple[float, float], noises: tuple[float, float], beta: float
) -> None:
    """A number between 0 and 1 in a conflict, whatever the unit."""
    p, s = norms
    gramian = torch.tensor([[[p * p, -0.5 * p * s], [-0.5 * p * s, s * s]]], dtype=torch.float64)
    variances = torch.tensor([noises], dtype=torch.float64)
    unit = scaled_variances(variances, gramian, beta, scale)
    assert (unit >= 0).all()
    assert torch.isfinite(unit).all()
    found = decide("pcr", gramian, unit, beta, gate=True, min_cosine=0.0, stability_floor=True)
    assert 0 <= float(found.alpha) <= 1
    assert torch.isfinite(found.weights).all()


@given(
    norms=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    noises=st.tuples(*[st.just(0.0) | st.floats(1e-6, 100)] * 2),
    factors=st.tuples(st.floats(-12, 12), st.floats(-12, 12)),
)
@settings(derandomize=True, max_examples=200)
def test_relative_variances_do_not_know_the_units_of_the_losses(
    norms: tuple[float, float], noises: tuple[float, float], factors: tuple[float, float]
) -> None:
    squares = torch.tensor([each**2 for each in norms], dtype=torch.float64)
    variances = torch.tensor([noises], dtype=torch.float64)
    by = torch.tensor([10.0**each for each in factors], dtype=torch.float64) ** 2
    one = scaled_variances(variances, torch.diag(squares)[None], 0.1, "relative")
    other = scaled_variances(variances * by, torch.diag(squares * by)[None], 0.1, "relative")
    # Where noise and norm are nearly equal, what is left of the signal is rounding.
    near = (variances[0] - squares).abs() < 1e-3 * squares
    assert torch.allclose(one[0][~near], other[0][~near], rtol=1e-9, atol=0)
