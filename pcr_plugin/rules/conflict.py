"""When two gradients are in conflict (section 4.2 of the paper)."""

import torch
from torch import Tensor

# Below this ratio of squared norms the stability gradient is rounding noise: on the first
# on-policy step the policy is the reference and s is zero.
NEGLIGIBLE = 1e-12


def has_stability(gramian: Tensor) -> Tensor:
    """Where the stability gradient is more than rounding noise.

    Args:
        gramian: (B, 2, 2) [[p.p, p.s], [p.s, s.s]].

    Returns:
        (B,) bool.
    """
    return (gramian[:, 1, 1] >= NEGLIGIBLE * gramian[:, 0, 0]) & (gramian[:, 1, 1] > 0)


def find_conflicts(gramian: Tensor, *, gate: bool = True, min_cosine: float = 0.0) -> Tensor:
    """Where the rule projects.

    Args:
        gramian: (B, 2, 2) [[p.p, p.s], [p.s, s.s]].
        gate: `True`: p.s < 0, the paper's definition. `False`: every block that has a
            plasticity and a stability gradient (Eq. 15 taken literally).
        min_cosine: with the gate, the cosine must lie below `-min_cosine`.

    Returns:
        (B,) bool. A block whose Gramian is not finite is in no conflict.
    """
    usable = has_stability(gramian) & torch.isfinite(gramian).flatten(1).all(dim=1)
    if not gate:
        # Without p there is nothing to project, and Eq. 15 would take the KL away.
        return usable & (gramian[:, 0, 0] > 0)
    product = gramian[:, 0, 1]
    threshold = min_cosine * (gramian[:, 0, 0] * gramian[:, 1, 1]).clamp(min=0).sqrt()
    return usable & (product < 0) & (product < -threshold)
