"""Two gradients without a conflict that are weighted sums of the same scores.

p_i = mu_p + a_i x_i and s_i = mu_s + b_i x_i with x_i ~ N(0, I / n), E[a b] = -CORRELATION and
mu_p at a right angle to mu_s. So E[p].E[s] = 0, and p.s of N sequences has the mean
-CORRELATION / N.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from examples.same_sample_bias.products import Estimate, across, cosine, dot, mean_of

WIDTH = 50
CORRELATION = 0.5
SIGNAL = 0.2  # norm of mu_p and of mu_s; the noise of one sequence has the norm 1


class Row(NamedTuple):
    """One size of the mini-batch.

    Attributes:
        sequences: in a mini-batch.
        product: p.s.
        crossed: the product across halves.
        cosine: of p and s.
        cosine_unbiased: with the product across halves.
        conflicts: share of mini-batches in which p.s < 0.
        conflicts_crossed: share in which the product across halves is below 0.
    """

    sequences: int
    product: Estimate
    crossed: Estimate
    cosine: Estimate
    cosine_unbiased: Estimate
    conflicts: float
    conflicts_crossed: float

    @property
    def expected(self) -> float:
        """The bias of p.s, since E[p].E[s] = 0."""
        return -CORRELATION / self.sequences


def rows(sizes: tuple[int, ...] = (8, 32, 128), draws: int = 4000) -> Iterator[Row]:
    """Measure mini-batches of several sizes.

    Args:
        sizes: sequences in a mini-batch, even.
        draws: mini-batches of each size.
    """
    plain = torch.eye(WIDTH, dtype=torch.float64)
    for size in sizes:
        source = torch.Generator().manual_seed(size)
        parts = [_halves(size // 2, min(500, draws), source) for _ in range(max(1, draws // 500))]
        p, s = (torch.cat(of_one) for of_one in zip(*parts, strict=True))
        whole_p, whole_s = p.sum(dim=1), s.sum(dim=1)
        product, crossed = dot(whole_p, whole_s, plain), across(p, s, plain)
        yield Row(
            size,
            mean_of(product),
            mean_of(crossed),
            mean_of(cosine(product, whole_p, whole_s, plain)),
            mean_of(cosine(crossed, whole_p, whole_s, plain)),
            (product < 0).double().mean().item(),
            (crossed < 0).double().mean().item(),
        )


def _halves(size: int, draws: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """(draws, 2, WIDTH) contributions of two halves of `size` sequences to p and to s."""
    scores = torch.randn(draws, 2, size, WIDTH, generator=source, dtype=torch.float64) / WIDTH**0.5
    a, own = torch.randn(2, draws, 2, size, 1, generator=source, dtype=torch.float64)
    b = -CORRELATION * a + (1 - CORRELATION**2) ** 0.5 * own
    means = SIGNAL * torch.eye(2, WIDTH, dtype=torch.float64)
    p, s = ((mean + weight * scores).sum(dim=2) for mean, weight in zip(means, (a, b), strict=True))
    return p / (2 * size), s / (2 * size)
