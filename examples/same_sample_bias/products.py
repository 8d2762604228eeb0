"""What many mini-batches of one policy say about p.s, and what is true."""

from typing import NamedTuple

import torch
from torch import Tensor

# Mini-batches are taken in this many groups, whose means give the standard errors.
_GROUPS = 20


class Estimate(NamedTuple):
    """A mean over mini-batches.

    Attributes:
        mean: of the mini-batches.
        error: its standard error.
    """

    mean: float
    error: float


def mean_of(values: Tensor) -> Estimate:
    """Mean of (R,) values and its standard error; of those that are finite.

    A mini-batch without any advantage has no p and no cosine.
    """
    values = values[torch.isfinite(values)]
    return Estimate(values.mean().item(), values.std().item() / len(values) ** 0.5)


def product_of_means(p: Tensor, s: Tensor, metric: Tensor) -> Estimate:
    """E[p].E[s], from products of p of one mini-batch and s of another.

    Args:
        p: (R, n) coefficients of independent mini-batches.
        s: (R, n) of the same mini-batches.
        metric: (n, n) inner products of what the coefficients multiply.
    """
    estimates = []
    for of_p, of_s in zip(p.chunk(_GROUPS), s.chunk(_GROUPS), strict=True):
        count, through = len(of_p), of_s @ metric
        same = (of_p * through).sum()
        estimates.append((of_p.sum(dim=0) @ through.sum(dim=0) - same) / (count * (count - 1)))
    return mean_of(torch.stack(estimates))


def across(p: Tensor, s: Tensor, metric: Tensor) -> Tensor:
    """The product that `split_half` takes: p of one half times s of the other.

    Args:
        p: (R, 2, n) coefficients of two halves of equal weight, which add up to those of p.
        s: the same of s.
        metric: (n, n).

    Returns:
        (R,): the mean of (p_A / w_A).(s_B / w_B) and (p_B / w_B).(s_A / w_A), w = 1/2.
    """
    through = s @ metric
    return 2 * ((p[:, 0] * through[:, 1]).sum(dim=1) + (p[:, 1] * through[:, 0]).sum(dim=1))


def dot(first: Tensor, second: Tensor, metric: Tensor) -> Tensor:
    """(R,) inner products of (R, n) coefficients."""
    return (first * (second @ metric)).sum(dim=-1)


def cosine(product: Tensor, p: Tensor, s: Tensor, metric: Tensor) -> Tensor:
    """(R,) what is logged: a product over the norms of p and s, noise included."""
    return product / (dot(p, p, metric) * dot(s, s, metric)).sqrt()
