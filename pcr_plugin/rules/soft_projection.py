"""The update of one block as two weights (Eq. 15 and 16).

With c = (p.s) / ||s||^2 the paper's g = p - alpha c s is p + beta_eff s with
beta_eff = -alpha c: GRPO whose beta is chosen per block.
"""

import torch
from torch import Tensor


def soft_projection(
    gramian: Tensor, alpha: Tensor, conflict: Tensor, beta: float, *, stability_floor: bool
) -> Tensor:
    """Weights of p and s in the combined gradient.

    Args:
        gramian: (B, 2, 2) [[p.p, p.s], [p.s, s.s]].
        alpha: (B,) projection strength.
        conflict: (B,) bool, where to project.
        beta: the KL coefficient, the weight of s where there is no conflict (Eq. 16).
        stability_floor: in a conflict keep at least `beta` (ours, not the paper's).

    Returns:
        (B, 2) weights (w_pla, w_sta); w_pla is 1.
    """
    coefficient = gramian[:, 0, 1] / gramian[:, 1, 1]  # c of Eq. 12
    projected = -alpha * coefficient
    if stability_floor:
        projected = projected.clamp(min=beta)
    w_sta = torch.where(conflict, projected, torch.full_like(projected, beta))
    return torch.stack([torch.ones_like(w_sta), w_sta], dim=1)
