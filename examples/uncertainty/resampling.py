"""Mini-batches put together from a pool of prompts, and what the rule makes of each."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pcr_plugin.rules import decide
from pcr_plugin.statistics import variance_of_total


class Pool(NamedTuple):
    """Inner products of all answers' gradients.

    Attributes:
        products: (2, 2, N, N) of p and s, float64; answers to one prompt are consecutive.
        answers: to each prompt.
    """

    products: Tensor
    answers: int

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return self.products.shape[-1] // self.answers


class Draws(NamedTuple):
    """Mini-batches of one size.

    Attributes:
        alpha: (R,) from the variances over the units.
        beta_eff: (R,) weight of s.
        conflict: (R,) bool.
    """

    alpha: Tensor
    beta_eff: Tensor
    conflict: Tensor


def pool_of(p: Tensor, s: Tensor, answers: int) -> Pool:
    """Multiply all gradients of a block.

    Args:
        p: (N, n) of single answers, float64.
        s: the same.
        answers: to each prompt.
    """
    vectors = torch.stack([p, s])
    return Pool(torch.einsum("aid,bjd->abij", vectors, vectors), answers)


def draw(pool: Pool, prompts: int, draws: int, beta: float, *, whole: bool, seed: int) -> Draws:
    """Take mini-batches without replacement and decide on each.

    Args:
        pool: of one block.
        prompts: in a mini-batch, at least 2.
        draws: mini-batches.
        beta: the KL coefficient.
        whole: units are prompts with all their answers; otherwise single answers.
        seed: of the choice.
    """
    source = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(pool.prompts, generator=source) for _ in range(draws)])
    rows = order[:, :prompts, None] * pool.answers + torch.arange(pool.answers)
    rows = rows.flatten(1)  # (R, K) answers, each of the share 1 / K
    taken = pool.products[:, :, rows[:, :, None], rows[:, None, :]] / rows.shape[1] ** 2
    gramian = taken.sum(dim=(-1, -2)).permute(2, 0, 1)
    size = pool.answers if whole else 1
    units = rows.shape[1] // size
    cut = taken.view(2, 2, draws, units, size, units, size).sum(dim=(4, 6))
    squares = cut.diagonal(dim1=3, dim2=4).sum(dim=-1) * units
    variances = torch.stack(
        [
            variance_of_total(squares[i, i], gramian[:, i, i], torch.tensor(float(units)))
            for i in range(2)
        ],
        dim=1,
    )
    found = decide("pcr", gramian, variances.clamp(min=0), beta)
    return Draws(found.alpha, found.weights[:, 1], found.conflict)


def mean_product(pool: Pool, prompts: int) -> tuple[float, float]:
    """Mean of p.s over all mini-batches of a size, and its part from within prompts.

    Args:
        pool: of one block.
        prompts: in a mini-batch.

    Returns:
        E[p].E[s] + C / prompts, and the share of the second term.
    """
    shape = (pool.prompts, pool.answers, pool.prompts, pool.answers)
    products = pool.products[0, 1].view(shape).mean(dim=(1, 3))
    within = products.diagonal().mean().item()
    across = (products.sum() - products.diagonal().sum()).item()
    across /= pool.prompts * (pool.prompts - 1)
    excess = (within - across) / prompts
    return across + excess, excess / (across + excess)


def band(values: Tensor, levels: Sequence[float] = (0.1, 0.5, 0.9)) -> list[float]:
    """Quantiles of (R,) values."""
    found: list[float] = values.quantile(torch.tensor(levels, dtype=values.dtype)).tolist()
    return found
