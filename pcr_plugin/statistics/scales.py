"""`pcr.variance.scale`: in which unit the two variances are compared."""

import torch
from torch import Tensor

# Signal below this share of the squared norm counts as this share: the ratio stays finite and a
# pure-noise gradient still has (practically) no precision.
_SIGNAL_FLOOR = 1e-12


def scaled_variances(variances: Tensor, gramian: Tensor, beta: float, scale: str) -> Tensor:
    """Bring V_pla and V_sta to the unit in which the rule compares them.

    Args:
        variances: (B, 2) V of p and of s; a negative estimate counts as 0.
        gramian: (B, 2, 2).
        beta: the KL coefficient.
        scale: `absolute`: V itself (paper). `relative`: V / max(||g||^2 - V, eps), the noise
            over the debiased signal; invariant when either loss is rescaled. `beta`: V of p and
            of beta s.

    Returns:
        (B, 2), non-negative; NaN stays NaN.
    """
    positive = variances.clamp(min=0)
    if scale == "absolute":
        return positive
    if scale == "beta":
        return positive * positive.new_tensor([1.0, beta**2])
    assert scale == "relative", scale
    squared_norms = gramian.diagonal(dim1=-2, dim2=-1)
    signal = torch.maximum(squared_norms - positive, _SIGNAL_FLOOR * squared_norms)
    # A gradient of exactly zero has neither signal nor noise.
    return torch.where(squared_norms > 0, positive / signal, positive)
