"""Random probes against the gradients that they stand for."""

import math

import pytest
import torch
from torch import Tensor

from pcr_plugin.statistics import TokenRows, directions, projected, row_products, row_sums, signs

OUTPUTS, INPUTS, PROBES = 6, 5, 3
# Rows of 3, 1 and 4 tokens, and padding (-1) of two kinds.
LABELS = torch.tensor([0, 0, 0, -1, 1, 2, 2, 2, 2, 7])


def tokens(width: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(len(LABELS), width, generator=source, dtype=torch.float64)


def gradient_of_row(gradients: Tensor, inputs: Tensor, row: int) -> Tensor:
    here = row == LABELS
    return gradients[here].T @ inputs[here]


def drawn(width: int, seed: str) -> Tensor:
    return signs(width, PROBES, seed).double()


def halves(width: int, probes: int, seed: str) -> Tensor:
    return directions(signs(width, probes, seed), width, torch.device("cpu"), torch.float16)


@pytest.mark.parametrize("width", [1, 2, 5, 512, 8960])
def test_half_precision_signs_are_of_one_size_near_that_of_a_unit_vector(width: int) -> None:
    found = halves(width, 4, "a")
    assert found.shape == (width, 4)
    assert torch.equal(found.sign(), signs(width, 4, "a").half())
    assert found.abs().unique().numel() == 1
    size = float(found.abs().max())
    assert math.log2(size) == round(math.log2(size))
    assert 0.7 < size * math.sqrt(width) < 1.5


def test_signs_depend_on_the_seed_alone() -> None:
    assert torch.equal(signs(40, 4, "1 layer inputs"), signs(40, 4, "1 layer inputs"))
    assert not torch.equal(signs(40, 4, "1 layer inputs"), signs(40, 4, "2 layer inputs"))
    assert abs(float(signs(4000, 1, "b").float().mean())) < 5 / math.sqrt(4000)


def test_products_are_two_sided_projections_of_every_rows_gradient() -> None:
    gradients, inputs = tokens(OUTPUTS), tokens(INPUTS, seed=1)
    left, right = drawn(OUTPUTS, "l"), drawn(INPUTS, "r")
    found = row_products(
        torch.stack([projected(gradients, left, OUTPUTS), tokens(PROBES)], dim=1),
        torch.stack([projected(inputs, right, INPUTS), tokens(PROBES, seed=1)], dim=1),
        TokenRows.of(LABELS, 3),
    )
    for row in range(3):
        exact = left.T @ gradient_of_row(gradients, inputs, row) @ right
        assert torch.allclose(found[row, 0], exact)
        other = gradient_of_row(tokens(PROBES), tokens(PROBES, seed=1), row)
        assert torch.allclose(found[row, 1], other)


def test_sums_are_projections_of_every_rows_bias_gradient() -> None:
    gradients, left = tokens(OUTPUTS), drawn(OUTPUTS, "l")
    found = row_sums(projected(gradients, left, OUTPUTS)[:, None], TokenRows.of(LABELS, 3))
    for row in range(3):
        exact = left.T @ gradients[row == LABELS].sum(dim=0)
        assert torch.allclose(found[row, 0], exact)


def test_tokens_may_come_in_any_order() -> None:
    gradients, inputs = tokens(PROBES)[:, None], tokens(PROBES, seed=1)[:, None]
    order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))
    straight = row_products(gradients, inputs, TokenRows.of(LABELS, 3))
    mixed = row_products(gradients[order], inputs[order], TokenRows.of(LABELS[order], 3))
    assert torch.allclose(straight, mixed)


def test_a_row_without_tokens_has_no_gradient() -> None:
    gradients, inputs = tokens(PROBES)[:, None], tokens(PROBES, seed=1)[:, None]
    found = row_products(gradients, inputs, TokenRows.of(LABELS, 5))
    assert found.shape == (5, 1, PROBES, PROBES)
    assert (found[3:] == 0).all()
    assert (found[:3] != 0).all()


def test_squares_are_unbiased() -> None:
    """Also of differences of rows, which is what a variance is made of."""
    gradients, inputs = tokens(OUTPUTS), tokens(INPUTS, seed=1)
    rows = torch.stack([gradient_of_row(gradients, inputs, row) for row in range(3)])
    centred = rows - rows.mean(dim=0)
    found = []
    for draw in range(4000):
        left, right = drawn(OUTPUTS, f"{draw} l"), drawn(INPUTS, f"{draw} r")
        probes = left.T @ centred @ right
        found.append(probes.square().mean(dim=(1, 2)))
    mean, error = torch.stack(found).mean(dim=0), torch.stack(found).std(dim=0) / 4000**0.5
    exact = centred.square().sum(dim=(1, 2))
    assert ((mean - exact).abs() < 3 * error).all()
    assert (error < 0.03 * exact).all()


def test_half_precision_is_computed_without_overflow() -> None:
    """A gradient of ones, scaled for fp16, whose plain sum would be beyond its largest number."""
    width = 4096
    values = torch.full((2, width), 1000.0, dtype=torch.float16)
    ones = halves(width, 1, "a").abs()
    found = projected(values, ones, width)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.full((2, 1), 1000.0 * width))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [512, 8960])
def test_autocast_of_the_host_changes_nothing(dtype: torch.dtype, width: int) -> None:
    """A norm under autocast leaves float32, of which a linear layer would take a half product."""
    values = tokens(width).float()
    own = directions(signs(width, PROBES, "a"), width, torch.device("cpu"), values.dtype)
    with torch.autocast("cpu", dtype):
        assert (values @ own).dtype == dtype, "the host must be in its own type here"
        found = projected(values, own, width)
    exact = values.double() @ drawn(width, "a")
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5 * width**0.5)


def test_a_long_row_does_not_pad_the_others_to_it() -> None:
    labels = torch.cat([torch.zeros(3000), torch.arange(1, 200).repeat_interleave(20)]).long()
    rows = TokenRows.of(labels, 200)
    laid_out = rows.laid_out(torch.ones(len(labels), 1))
    assert laid_out.numel() <= 2 * len(labels) + 200
    assert torch.equal(rows.by_row(laid_out.sum(dim=1)).flatten(), torch.bincount(labels).float())


@pytest.mark.parametrize("probes", [1, 7, 8, 9, 80])
def test_every_direction_has_bits_of_its_own(probes: int) -> None:
    found = signs(2000, probes, "c").float()
    correlations = (found.T @ found) / 2000 - torch.eye(probes)
    assert found.shape == (2000, probes)
    assert float(correlations.abs().max()) < 6 / math.sqrt(2000)
