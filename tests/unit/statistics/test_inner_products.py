"""Inner products whose sign decides about a conflict; the oracle is `math.fsum`, exact."""

import math

import pytest
import torch
from torch import Tensor

from pcr_plugin.statistics import inner_products, local_gramian
from tests.unit.explicit_vectors import SCALES, SEEDS, generator

CPU = torch.device("cpu")


def exact(first: Tensor, second: Tensor) -> float:
    """Products of two float32 numbers are exact in float64; `fsum` adds without rounding."""
    pairs = zip(first.flatten().tolist(), second.flatten().tolist(), strict=True)
    return math.fsum(a * b for a, b in pairs)


def dot(first: Tensor, second: Tensor) -> Tensor:
    """p.s of a block of one tensor."""
    return local_gramian([[first], [second]], [0], 1, CPU)[0, 0, 1]


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=generator(seed)).to(dtype)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_float32_loses_a_sign_that_is_found_here(sign: float) -> None:
    """Large products that cancel, and a small one that is left over."""
    first = torch.tensor([1e4, 1e-3, 1e4])
    second = torch.tensor([1e4, sign * 1e-3, -1e4])
    in_float32 = torch.tensor(0.0)
    for a, b in zip(first, second, strict=True):
        in_float32 = in_float32 + a * b
    assert in_float32.item() == 0.0, "the case must be one that float32 gets wrong"
    value = dot(first, second).item()
    assert value == pytest.approx(exact(first, second), rel=1e-2)
    assert math.copysign(1.0, value) == sign


@pytest.mark.parametrize("seed", SEEDS)
def test_nearly_orthogonal_gradients_of_a_large_block(seed: int) -> None:
    """cos about 1e-8: float32 sums carry an error of that order, the sign needs more."""
    first, second = numbers(seed, 50_000), numbers(seed + 50, 50_000)
    unit = first.double()
    second = (second.double() - (second.double() @ unit) / (unit @ unit) * unit).float()
    truth = exact(first, second)
    scale = first.double().norm() * second.double().norm()
    assert abs(truth) < 1e-7 * scale, "the case must be nearly orthogonal"
    assert abs(dot(first, second).item() - truth) < 1e-13 * scale
    assert math.copysign(1, dot(first, second).item()) == math.copysign(1, truth)


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_no_element_is_lost_or_doubled_at_a_chunk_boundary(
    monkeypatch: pytest.MonkeyPatch, chunk: int, beyond: int, chunks: int
) -> None:
    monkeypatch.setattr(inner_products, "_CHUNK_ON_CPU", chunk)
    size = chunk * chunks + beyond
    first, second = numbers(size, size), numbers(size + 1, size)
    assert dot(first, second).item() == pytest.approx(exact(first, second), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1,), ()])
def test_shapes_and_types(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    first, second = numbers(1, *shape, dtype=dtype), numbers(2, *shape, dtype=dtype)
    value = dot(first, second)
    assert value.dtype == torch.float64
    assert value.shape == ()
    assert value.item() == pytest.approx(exact(first, second), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("scale", [*SCALES, 1e-20, 1e20, 1e30])
def test_squares_beyond_the_range_of_float32(scale: float) -> None:
    vector = scale * torch.ones(100)
    assert dot(vector, vector).item() == pytest.approx(100 * scale**2, rel=1e-6)


def test_bfloat16_is_not_summed_in_bfloat16() -> None:
    ones = torch.ones(10_000, dtype=torch.bfloat16)
    assert dot(ones, ones).item() == 10_000.0


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
def test_an_empty_shard_counts_nothing(shape: tuple[int, ...]) -> None:
    value = dot(torch.empty(shape), torch.empty(shape))
    assert value.item() == 0.0
    assert value.dtype == torch.float64


def test_views_that_are_not_contiguous() -> None:
    matrix, other = numbers(3, 6, 8), numbers(4, 8, 6)
    assert dot(matrix.T, other).item() == pytest.approx(exact(matrix.T.contiguous(), other))
    assert dot(matrix[::2, 1:], other.T[::2, 1:]).item() == pytest.approx(
        exact(matrix[::2, 1:].contiguous(), other.T[::2, 1:].contiguous())
    )


def test_numbers_that_are_not_finite_are_not_hidden() -> None:
    for bad in (torch.nan, torch.inf):
        assert not torch.isfinite(dot(torch.tensor([1.0, bad]), torch.tensor([1.0, 1.0])))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_block_is_the_sum_over_its_tensors(seed: int) -> None:
    """Two blocks with interleaved tensors, against whole concatenated vectors."""
    shapes, block_of = [(4, 3), (5,), (2, 2, 2), (6, 1)], [1, 0, 1, 0]
    p = [numbers(seed + i, *shape) for i, shape in enumerate(shapes)]
    s = [numbers(seed + 10 + i, *shape) for i, shape in enumerate(shapes)]
    table = local_gramian([p, s], block_of, 2, CPU)
    assert table.dtype == torch.float64
    for block in range(2):
        members = [i for i, owner in enumerate(block_of) if owner == block]
        whole = [torch.cat([side[i].reshape(-1) for i in members]) for side in (p, s)]
        expected = [[exact(a, b) for b in whole] for a in whole]
        torch.testing.assert_close(table[block], torch.tensor(expected, dtype=torch.float64))


def test_a_parameter_without_a_gradient_counts_as_zero() -> None:
    p, s = [torch.tensor([3.0]), None, None], [None, torch.tensor([2.0]), None]
    table = local_gramian([p, s], [0, 0, 1], 3, CPU)
    assert table.tolist() == [[[9.0, 0.0], [0.0, 4.0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("seed", SEEDS)
def test_shards_of_ranks_add_up(seed: int) -> None:
    """Uneven shards of two tensors on three ranks; the second has nothing of the first tensor."""
    p, s = [numbers(seed, 10), numbers(seed + 1, 9)], [numbers(seed + 2, 10), numbers(seed + 3, 9)]
    cuts = ([0, 7, 7, 10], [0, 1, 5, 9])
    whole = local_gramian([p, s], [0, 1], 2, CPU)
    of_ranks = [
        local_gramian(
            [[x[c[rank] : c[rank + 1]] for x, c in zip(g, cuts, strict=True)] for g in (p, s)],
            [0, 1],
            2,
            CPU,
        )
        for rank in range(3)
    ]
    torch.testing.assert_close(sum(of_ranks), whole, rtol=1e-13, atol=1e-13)
