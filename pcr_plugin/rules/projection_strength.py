"""How much of the conflicting component is removed: Proposition 4.1 (Eq. 13), Theorem 5.1.

Problem: z_obs = z + noise with prior z ~ N(0, V_sta) and noise ~ N(0, V_pla). The estimator
(1 - alpha) z_obs has the risk R(alpha) = alpha^2 V_sta + (1 - alpha)^2 V_pla; its minimum is at

    alpha = V_pla / (V_pla + V_sta) = lambda_sta / (lambda_pla + lambda_sta),  lambda = 1 / V.
"""

import torch
from torch import Tensor


def bayesian_strength(variances: Tensor) -> Tensor:
    """The strength alpha = 1 - k that minimises the risk (Eq. 13).

    Args:
        variances: (B, 2) V_pla and V_sta in one unit, non-negative.

    Returns:
        (B,) alpha in [0, 1]. 1 where both variances are zero: without uncertainty PCR is
        PCGrad. NaN where a variance is.
    """
    plasticity, stability = variances.unbind(dim=1)
    total = plasticity + stability
    return torch.where(total == 0, torch.ones_like(total), plasticity / total)
