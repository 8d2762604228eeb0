"""Section 4 and Theorem 5.1 on whole gradients: the paper's model is drawn, `decide` answers.

`test_projection_strength.py` has the theorem on numbers along the axis alone.
"""

import numpy
import pytest
import torch
from torch import Tensor

from pcr_plugin.rules import bayesian_strength, decide
from tests.unit.explicit_vectors import SCALES, SEEDS, combined, generator, gramian, pair
from tests.unit.rules.paper_model import WIDTH, decided, draw, excess_risk

BETA = 0.03
MODELS = [(1.0, 1.0), (4.0, 0.5), (0.1, 2.0), (1e-3, 1.0)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("v_pla", "v_sta"), MODELS)
def test_no_alpha_has_a_smaller_risk_in_the_conflicts_of_the_model(
    seed: int, v_pla: float, v_sta: float
) -> None:
    """Over observations in conflict alone, since only these are projected: the optimum is as if
    all were, because the estimator is optimal given each observation.
    """
    sample = draw(seed, v_pla, v_sta)
    found = decided(sample, v_pla, v_sta)
    assert 0.4 < found.conflict.double().mean().item() < 0.6
    for other in torch.linspace(0, 1, 21).tolist():
        excess, standard_error = excess_risk(sample, found, other)
        assert excess > -3 * standard_error
        if abs(other - found.alpha[0].item()) > 0.1:  # the draws suffice to tell
            assert excess > 3 * standard_error


@pytest.mark.parametrize("v_pla", SCALES)
@pytest.mark.parametrize("v_sta", SCALES)
def test_the_risk_is_stationary_and_convex_at_alpha(v_pla: float, v_sta: float) -> None:
    """R(alpha) = E[((1 - alpha) z_obs - z*)^2] by quadrature, exact for polynomials; its
    derivatives by autograd.
    """
    nodes, weights = map(torch.from_numpy, numpy.polynomial.hermite_e.hermegauss(3))
    weights = weights / weights.sum()
    latent, noise = v_sta**0.5 * nodes[:, None], v_pla**0.5 * nodes[None, :]
    variances = torch.tensor([[v_pla, v_sta]], dtype=torch.float64)
    alpha = bayesian_strength(variances)[0].requires_grad_()
    error = (1 - alpha) * (latent + noise) - latent
    risk = (weights[:, None] * weights[None, :] * error.square()).sum()
    [slope] = torch.autograd.grad(risk, alpha, create_graph=True)
    [curvature] = torch.autograd.grad(slope, alpha)
    # Rounding of alpha near 1 and of sums of nine products.
    assert abs(slope.item()) <= 1e-14 * (v_pla + v_sta)
    assert curvature.item() == pytest.approx(2 * (v_pla + v_sta))


def resolved(v_pla: float, v_sta: float) -> tuple[Tensor, Tensor, Tensor]:
    """p, s and the combined gradient of one block in conflict."""
    p, s = pair(3, WIDTH, cosine=-0.6, norm_p=2.0, norm_s=0.5)
    variances = torch.tensor([[v_pla, v_sta]], dtype=torch.float64)
    weights = decide("pcr", gramian([(p, s)]), variances, BETA).weights
    return p, s, combined(weights, [(p, s)])[0]


@pytest.mark.parametrize("ratio", [1e-3, 1e-5, 1e-8])
def test_certain_plasticity_leaves_p_and_no_kl_at_all(ratio: float) -> None:
    """alpha -> 0. The paper calls it standard gradient addition, but that has beta s."""
    p, s, g = resolved(ratio, 1.0)
    along = abs(p @ s) / s.norm()
    assert (g - p).norm().item() == pytest.approx(ratio * along.item(), rel=2 * ratio)
    assert (g - (p + BETA * s)).norm() > 0.5 * BETA * s.norm()


@pytest.mark.parametrize("ratio", [1e-2, 1e-5, 1e-8])
def test_certain_stability_is_the_hard_projection(ratio: float) -> None:
    """alpha -> 1: what is left against s vanishes as V_sta."""
    p, s, g = resolved(1.0, ratio)
    assert (g @ s).item() == pytest.approx((ratio * (p @ s)).item(), rel=2 * ratio)
    hard = p - s * (p @ s) / (s @ s)
    assert (g - hard).norm() <= 2 * ratio * p.norm()


@pytest.mark.parametrize("seed", SEEDS)
def test_stock_grpo_lies_at_minus_beta_over_c(seed: int) -> None:
    """The paper's "naive sum" is alpha = 0, which is p; p + beta s is another point of the axis."""
    p, s = pair(seed, WIDTH, cosine=-0.4, norm_s=0.7)
    table = gramian([(p, s)])
    no_variance = torch.zeros(1, 2, dtype=torch.float64)
    alpha = -BETA / (table[0, 0, 1] / table[0, 1, 1]).item()
    soft = decide("soft", table, no_variance, BETA, fixed_alpha=alpha).weights
    stock = decide("sum", table, no_variance, BETA).weights
    torch.testing.assert_close(soft, stock)
    assert 0 < alpha < 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [0.2, 0.7, 1.0])
def test_pcr_is_the_gradient_of_grpo_with_another_beta(seed: int, alpha: float) -> None:
    """The loss L_pla + beta_eff L_sta, differentiated by autograd, block by block."""
    source = generator(seed)
    blocks = [torch.randn(5, generator=source, dtype=torch.float64) for _ in range(3)]
    blocks = [block.requires_grad_() for block in blocks]
    data = torch.randn(2, 3, 5, generator=source, dtype=torch.float64)

    def surrogate(parts: list[Tensor]) -> Tensor:
        return torch.stack(
            [(b * x).sum().tanh() for b, x in zip(parts, data[0], strict=True)]
        ).sum()

    def kl(parts: list[Tensor]) -> Tensor:
        return torch.stack(
            [(b - x).square().sum() for b, x in zip(parts, data[1], strict=True)]
        ).sum()

    pairs = list(
        zip(
            torch.autograd.grad(surrogate(blocks), blocks),
            torch.autograd.grad(kl(blocks), blocks),
            strict=True,
        )
    )
    found = decide(
        "soft", gramian(pairs), torch.zeros(3, 2, dtype=torch.float64), BETA, fixed_alpha=alpha
    )
    beta_eff = found.weights[:, 1].tolist()
    for (p, s), weight, conflict in zip(pairs, beta_eff, found.conflict.tolist(), strict=True):
        assert weight == pytest.approx((-alpha * (p @ s) / (s @ s)).item() if conflict else BETA)
    # A beta per block: each loss sees the other blocks' parameters as constants.
    loss = surrogate(blocks)
    for index, weight in enumerate(beta_eff):
        parts = [b if i == index else b.detach() for i, b in enumerate(blocks)]
        loss = loss + weight * kl(parts)
    expected = combined(found.weights, pairs)
    for ours, theirs in zip(expected, torch.autograd.grad(loss, blocks), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("alpha", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("cosine", [-0.5, 0.5])
def test_first_order_change_of_the_kl(alpha: float, cosine: float) -> None:
    """A step along -g changes the KL by -g.s = -(1 - alpha) p.s, with or without a conflict.

    In a conflict it still grows unless alpha is 1. Without one and without the gate it still
    falls, but by less than with p alone, because beta_eff is negative.
    """
    p, s = pair(4, WIDTH, cosine)
    weights = decide(
        "soft",
        gramian([(p, s)]),
        torch.zeros(1, 2, dtype=torch.float64),
        BETA,
        fixed_alpha=alpha,
        gate=False,
    ).weights
    [g] = combined(weights, [(p, s)])
    assert (weights[0, 1].item() < 0) is (cosine > 0)
    assert (g @ s).item() == pytest.approx((1 - alpha) * (p @ s).item(), abs=1e-15)
