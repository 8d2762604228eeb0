"""The variance behind Eq. 10, also of parameters whose gradient only some units give together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.oracle.gradients import Unit, flat


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Parameters whose gradient is only known summed over several units.

    Args:
        names: of the parameters.
        groups: indices of the units that come together; each once.
    """

    names: frozenset[str] = frozenset()
    groups: Sequence[Sequence[int]] = ()


NO_POOL = Pool()


def variances_of(
    units: Sequence[Unit], names: Sequence[str], pool: Pool
) -> tuple[float, float] | None:
    """V of p and of s: a trace, so the sum of those of the parameters with units of either kind."""
    apart = [name for name in names if name not in pool.names]
    together = [name for name in names if name in pool.names]
    singly = [[index] for index in range(len(units))]
    kinds = [(apart, singly), (together, pool.groups)]
    found = [_spread(units, members, groups) for members, groups in kinds if members]
    if any(values is None for values in found):
        return None
    pla, sta = zip(*(values for values in found if values), strict=True)
    return sum(pla), sum(sta)


def _spread(
    units: Sequence[Unit], names: Sequence[str], groups: Sequence[Sequence[int]]
) -> tuple[float, float] | None:
    sizes = [sum(units[index].size for index in group) for group in groups]
    counted = [group for group, size in zip(groups, sizes, strict=True) if size > 0]
    if len(counted) < 2:
        return None
    shares = [size / sum(sizes) for size in sizes if size > 0]
    pla, sta = (
        [
            torch.stack([flat(getattr(units[index], kind), names) for index in group]).sum(dim=0)
            for group in counted
        ]
        for kind in ("plasticity", "stability")
    )
    return variance(pla, shares), variance(sta, shares)


def variance(contributions: Sequence[Tensor], shares: Sequence[float]) -> float:
    """Unbiased estimate of the trace of the covariance of g = sum_m g_m.

    Unit m estimates the mean gradient by g_m / w_m with a covariance of Sigma M / w_m up to a
    constant; the weighted spread around g, divided by M - 1, is the estimate.

    Args:
        contributions: g_m, flat.
        shares: w_m > 0, adding up to 1.
    """
    total = torch.stack(list(contributions)).sum(dim=0)
    spread = sum(
        share * float((g / share - total).square().sum())
        for g, share in zip(contributions, shares, strict=True)
    )
    return spread / (len(shares) - 1)
