"""The trace of the covariance of a gradient, from units that add up to it (Eq. 10).

| symbol | shape  | meaning                                                           |
|--------|--------|-------------------------------------------------------------------|
| g_m    |        | contribution of unit m; the g_m add up to the block's gradient g   |
| w_m    | scalar | unit m's share of the tokens or sequences; the w_m add up to 1     |
| M      | scalar | number of units of positive weight                                |
| V      | (B,)   | (sum_m ||g_m||^2 / w_m - ||g||^2) / (M - 1)                        |

g_m / w_m is unit m's own estimate of the mean gradient, so V is their weighted spread; it is
zero when all units agree.
"""

import torch
from torch import Tensor


def variance_of_total(weighted_squares: Tensor, squared_norm: Tensor, units: Tensor) -> Tensor:
    """Estimate of tr Cov[g] for every block.

    Unbiased where the variance of g_m / w_m is as 1 / w_m, as with equal weights; how far off it
    is with sequences of unequal lengths is measured in docs/estimators.md.

    Args:
        weighted_squares: (B,) sum_m ||g_m||^2 / w_m.
        squared_norm: (B,) ||g||^2.
        units: scalar, M.

    Returns:
        (B,) V, which can come out negative by rounding; NaN where fewer than two units exist,
        because one unit says nothing about its spread.
    """
    spread = (weighted_squares - squared_norm) / (units - 1).clamp(min=1)
    return torch.where(units > 1, spread, torch.full_like(spread, torch.nan))
