"""Whole gradient vectors, from which the tests compute what the package gets from few numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SEEDS = range(4)
SIZES = (2, 3, 17, 400)
SCALES = (1e-8, 1e-3, 1.0, 1e4, 1e8)


class Pair(NamedTuple):
    """The two gradients of one block, float64."""

    p: Tensor
    s: Tensor


def generator(seed: int) -> torch.Generator:
    """A generator of its own, so that tests do not depend on their order."""
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal float64 numbers."""
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def pair(seed: int, size: int, cosine: float, norm_p: float = 1.0, norm_s: float = 1.0) -> Pair:
    """Two vectors in a random plane, with a given angle and given norms."""
    along, across = torch.linalg.qr(normal(seed, size, 2))[0].T
    sine = (1 - cosine**2) ** 0.5
    return Pair(p=norm_p * (cosine * along + sine * across), s=norm_s * along)


def gramian(pairs: Sequence[Pair]) -> Tensor:
    """(B, 2, 2) of [[p.p, p.s], [p.s, s.s]]."""
    return torch.stack([torch.stack([p, s]) @ torch.stack([p, s]).T for p, s in pairs])


def combined(weights: Tensor, pairs: Sequence[Pair]) -> list[Tensor]:
    """The gradient of every block that a (B, 2) table of weights stands for."""
    return [w[0] * p + w[1] * s for w, (p, s) in zip(weights, pairs, strict=True)]


def variance_of_mean(units: Tensor, sizes: Tensor) -> Tensor:
    """tr Cov of the total, by the definition: weighted spread of the units' own estimates.

    Args:
        units: (M, n) contributions g_m, which add up to the total.
        sizes: (M,) number of samples behind each.
    """
    shares = sizes / sizes.sum()
    estimates = units / shares[:, None]
    spread = (estimates - units.sum(dim=0)).square().sum(dim=1)
    return (shares * spread).sum() / (len(units) - 1)
