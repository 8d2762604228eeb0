"""The same in GRPO: one policy at several steps, thousands of fresh mini-batches of each."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from examples.same_sample_bias.policy import (
    GROUPS,
    Policy,
    Rollouts,
    coefficients,
    gathered,
    roll_out,
    training,
)
from examples.same_sample_bias.products import (
    Estimate,
    across,
    cosine,
    dot,
    mean_of,
    product_of_means,
)


class Units(NamedTuple):
    """V from one kind of unit.

    Attributes:
        plasticity: mean of V_pla over the variance of p.
        stability: the same of s.
        alpha: from the two means.
    """

    plasticity: float
    stability: float
    alpha: float


class Row(NamedTuple):
    """One policy.

    Attributes:
        step: of training.
        reward: mean.
        true: E[p].E[s].
        product: p.s.
        by_prompts: the product across halves, a prompt's answers all in one of them.
        by_answers: the same with every prompt's answers in both halves.
        cosine: of p and s.
        cosine_unbiased: with the product across halves of prompts.
        cosine_true: of E[p] and E[s].
        conflicts: share of mini-batches in which p.s < 0.
        alpha: from the variances that the draws have.
        units: what each kind of unit makes of these variances.
    """

    step: int
    reward: float
    true: Estimate
    product: Estimate
    by_prompts: Estimate
    by_answers: Estimate
    cosine: Estimate
    cosine_unbiased: Estimate
    cosine_true: float
    conflicts: float
    alpha: float
    units: dict[str, Units]

    @property
    def same_sample_share(self) -> float:
        """The part of the mean p.s that products within a mini-batch add."""
        return 1 - self.true.mean / self.product.mean


def rows(
    steps: tuple[int, ...] = (25, 50, 100, 200), draws: int = 2000, seed: int = 0
) -> Iterator[Row]:
    """Train, and measure at some steps.

    Args:
        steps: ascending, from 1 on.
        draws: mini-batches at every step.
        seed: of everything.
    """
    source = torch.Generator().manual_seed(seed + 1)
    for step, policy, reference in training(seed, steps):
        yield _row(step, policy, reference, draws, source)


def _row(step: int, policy: Policy, reference: Policy, draws: int, source: torch.Generator) -> Row:
    with torch.no_grad():
        current = policy.log_probabilities()
        drift = current - reference.log_probabilities()
    scores = policy.scores()
    metric = scores @ scores.T
    rollouts = roll_out(current.exp(), draws, source)
    weights = coefficients(rollouts, drift)
    p, s = (_summed(w, rollouts, (2, GROUPS // 2)) for w in weights)
    split_p, split_s = (_split_groups(w, rollouts) for w in weights)
    whole_p, whole_s = p.sum(dim=1), s.sum(dim=1)
    product, crossed = dot(whole_p, whole_s, metric), across(p, s, metric)
    true = product_of_means(whole_p, whole_s, metric)
    norms = [product_of_means(x, x, metric).mean ** 0.5 for x in (whole_p, whole_s)]
    return Row(
        step,
        rollouts.rewards.mean().item(),
        true,
        mean_of(product),
        mean_of(crossed),
        mean_of(across(split_p, split_s, metric)),
        mean_of(cosine(product, whole_p, whole_s, metric)),
        mean_of(cosine(crossed, whole_p, whole_s, metric)),
        true.mean / (norms[0] * norms[1]),
        (product < 0).double().mean().item(),
        *_variances(weights, rollouts, metric),
    )


def _summed(weights: Tensor, rollouts: Rollouts, parts: tuple[int, int]) -> Tensor:
    """(R, parts[0], ROWS) sums over consecutive prompts."""
    shape = (len(weights), parts[0], -1)
    return gathered(weights.reshape(shape), rollouts.rows.reshape(shape))


def _split_groups(weights: Tensor, rollouts: Rollouts) -> Tensor:
    """(R, 2, ROWS) sums over the first and the second half of every prompt's answers."""
    halves = [
        gathered(w.flatten(1), r.flatten(1))
        for w, r in zip(weights.chunk(2, dim=2), rollouts.rows.chunk(2, dim=2), strict=True)
    ]
    return torch.stack(halves, dim=1)


def _variances(
    weights: tuple[Tensor, Tensor], rollouts: Rollouts, metric: Tensor
) -> tuple[float, dict[str, Units]]:
    """alpha of the variances that the draws have, and what units make of them."""
    of_draws, estimates = [], []
    for w in weights:
        whole = gathered(w.flatten(1), rollouts.rows.flatten(1))
        deviations = whole - whole.mean(dim=0)
        of_draws.append(dot(deviations, deviations, metric).sum().item() / (len(w) - 1))
        square = dot(whole, whole, metric)
        estimates.append(
            {
                name: _estimate(squares, square)
                for name, squares in _squares_of_units(w, rollouts.rows, metric).items()
            }
        )
    pla, sta = of_draws
    units = {
        name: Units(v_pla / pla, v_sta / sta, v_pla / (v_pla + v_sta))
        for name, v_pla, v_sta in zip(
            estimates[0], estimates[0].values(), estimates[1].values(), strict=True
        )
    }
    return pla / (pla + sta), units


def _estimate(squares: Tensor, square: Tensor) -> float:
    """Mean V of (R, M) squared norms of units and (R,) of their sum."""
    count = squares.shape[1]
    return ((count * squares.sum(dim=1) - square) / (count - 1)).mean().item()


def _squares_of_units(weights: Tensor, rows: Tensor, metric: Tensor) -> dict[str, Tensor]:
    """(R, M) squared norms of all answers to a prompt, of one answer to every prompt, of one."""
    together = gathered(weights.flatten(2), rows.flatten(2))
    mixed = gathered(weights.transpose(1, 2).flatten(2), rows.transpose(1, 2).flatten(2))
    tokens = metric[rows[..., :, None], rows[..., None, :]]
    single = torch.einsum("rgai,rgaij,rgaj->rga", weights, tokens, weights)
    return {
        "all answers to a prompt": dot(together, together, metric),
        "one answer": single.flatten(1),
        "one answer to every prompt": dot(mixed, mixed, metric),
    }
