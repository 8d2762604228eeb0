"""Numbers per block: inner products of the two gradients and the variance of each.

Imports torch alone.
"""

from pcr_plugin.statistics.inner_products import local_gramian
from pcr_plugin.statistics.moving_average import VarianceAverage
from pcr_plugin.statistics.probes import (
    TokenRows,
    directions,
    projected,
    row_products,
    row_sums,
    signs,
)
from pcr_plugin.statistics.scales import scaled_variances
from pcr_plugin.statistics.variance import variance_of_total

__all__ = [
    "TokenRows",
    "VarianceAverage",
    "directions",
    "local_gramian",
    "projected",
    "row_products",
    "row_sums",
    "scaled_variances",
    "signs",
    "variance_of_total",
]
