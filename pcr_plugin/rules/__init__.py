"""The paper's rule and its relatives: a 2x2 Gramian, two variances and beta in, two weights out.

Imports torch alone.
"""

from pcr_plugin.rules.conflict import find_conflicts
from pcr_plugin.rules.decision import BlockWeights, decide
from pcr_plugin.rules.projection_strength import bayesian_strength
from pcr_plugin.rules.soft_projection import soft_projection

__all__ = [
    "BlockWeights",
    "bayesian_strength",
    "decide",
    "find_conflicts",
    "soft_projection",
]
