"""Write the combined gradient of every block where the optimizer will look for it."""

from collections.abc import Sequence

import torch

from pcr_plugin.gradients.access import Gradients, Local


@torch.no_grad()
def combine_(
    gradients: Gradients, stability: Local, weights: Sequence[tuple[float, float]]
) -> None:
    """Replace p by w_pla p + w_sta s in the scope (Eq. 15 and 16).

    Args:
        gradients: the host's gradients, which hold p.
        stability: local shards of s.
        weights: (w_pla, w_sta) of every block.
    """
    w_pla, w_sta = zip(*(weights[block] for block in gradients.block_of), strict=True)
    for p, weight in zip(gradients.read(), w_pla, strict=True):
        if p is not None and weight != 1.0:
            p.mul_(weight)
    gradients.add(stability, w_sta)
