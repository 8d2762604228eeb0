"""Draws from the model behind Theorem 5.1."""

from typing import NamedTuple

import torch
from torch import Tensor

from pcr_plugin.rules import BlockWeights, decide
from tests.unit.explicit_vectors import generator

WIDTH, DRAWS = 12, 20_000


class Sample(NamedTuple):
    """Gradients of one block, float64.

    Attributes:
        s: (n,) the stability gradient, known; the axis is u = -s / ||s||.
        true: (DRAWS, n) plasticity gradients.
        observed: (DRAWS, n) the same with noise.
    """

    s: Tensor
    true: Tensor
    observed: Tensor


def draw(seed: int, v_pla: float, v_sta: float, *, noise_along: float | None = None) -> Sample:
    """True gradients z* u + a fixed part across, and observations of them.

    Args:
        seed: of everything.
        v_pla: trace of the covariance of the noise, isotropic unless `noise_along` is given.
        v_sta: of the prior, as a trace: z* has the variance v_sta / n.
        noise_along: share of `v_pla` along u in place of 1 / n.
    """
    source = generator(seed)
    s = torch.randn(WIDTH, generator=source, dtype=torch.float64)
    axis = -s / s.norm()
    across = torch.randn(WIDTH, generator=source, dtype=torch.float64)
    across = across - (across @ axis) * axis
    latent = torch.randn(DRAWS, 1, generator=source, dtype=torch.float64)
    true = across + (v_sta / WIDTH) ** 0.5 * latent * axis
    noise = (
        torch.randn(DRAWS, WIDTH, generator=source, dtype=torch.float64) * (v_pla / WIDTH) ** 0.5
    )
    if noise_along is not None:
        along = (noise @ axis)[:, None] * axis
        rest = ((1 - noise_along) * WIDTH / (WIDTH - 1)) ** 0.5
        noise = (noise_along * WIDTH) ** 0.5 * along + rest * (noise - along)
    return Sample(s, true, true + noise)


def decided(sample: Sample, v_pla: float, v_sta: float) -> BlockWeights:
    """What the rule decides about every draw, given these two variances."""
    s = sample.s.expand_as(sample.observed)
    vectors = torch.stack([sample.observed, s], dim=1)
    variances = torch.tensor([[v_pla, v_sta]], dtype=torch.float64).expand(DRAWS, 2)
    return decide("pcr", vectors @ vectors.mT, variances, beta=0.03)


def excess_risk(sample: Sample, found: BlockWeights, alpha: float) -> tuple[float, float]:
    """By how much another alpha has the larger squared error along the axis, in a conflict.

    Args:
        sample: draws.
        found: what the rule decided about them.
        alpha: the other projection strength.

    Returns:
        The mean of the paired differences and its standard error.
    """
    axis = -sample.s / sample.s.norm()
    observed, true = sample.observed @ axis, sample.true @ axis
    final = found.weights[:, 0] * observed + found.weights[:, 1] * (sample.s @ axis)
    theirs = ((1 - alpha) * observed - true).square()
    difference = (theirs - (final - true).square())[found.conflict]
    return difference.mean().item(), difference.std().item() / len(difference) ** 0.5
