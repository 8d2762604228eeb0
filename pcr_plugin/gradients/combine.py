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
    of_parameter = [weights[block] for block in gradients.block_of]
    for p, (w_pla, _) in zip(gradients.read(), of_parameter, strict=True):
        if p is not None and w_pla != 1.0:
            p.mul_(w_pla)
    gradients.add(stability, [w_sta for _, w_sta in of_parameter])
