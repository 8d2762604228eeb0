"""Write the combined gradient of every block where the optimizer will look for it."""

from collections.abc import Sequence

import torch

from pcr_plugin.gradients.access import Gradients, Local


@torch.no_grad()
def combine_(
    gradients: Gradients,
    stability: Local,
    weights: Sequence[tuple[float, float]],
    mix: float = 0.0,
) -> None:
    """Replace p + mix s by w_pla p + w_sta s in the scope (Eq. 15 and 16).

    Args:
        gradients: the host's gradients, which hold p + mix s.
        stability: local shards of s.
        weights: (w_pla, w_sta) of every block.
        mix: how much of s the host's gradients have already.
    """
    of_parameter = [weights[block] for block in gradients.block_of]
    for p, (w_pla, _) in zip(gradients.read(), of_parameter, strict=True):
        if p is not None and w_pla != 1.0:
            p.mul_(w_pla)
    missing = [w_sta - w_pla * mix for w_pla, w_sta in of_parameter]
    # Without a conflict p + beta s is there already, and stays to the last bit.
    needed = [s if m or not mix else None for s, m in zip(stability, missing, strict=True)]
    gradients.add(needed, missing)
