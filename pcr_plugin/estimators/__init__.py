"""Which units the variance of a gradient is measured over (`pcr.variance.estimator`)."""

from pcr_plugin.estimators.base import Estimator, Objective, RunPass, UnitColumns
from pcr_plugin.estimators.micro_batch import Merged, MicroBatchEstimator
from pcr_plugin.estimators.products import counted_gramian, without_mix
from pcr_plugin.estimators.sequence import SequenceEstimator
from pcr_plugin.estimators.sequence_ranks import SequenceRanks
from pcr_plugin.estimators.split_half import SplitHalfEstimator

__all__ = [
    "Estimator",
    "Merged",
    "MicroBatchEstimator",
    "Objective",
    "RunPass",
    "SequenceEstimator",
    "SequenceRanks",
    "SplitHalfEstimator",
    "UnitColumns",
    "counted_gramian",
    "without_mix",
]
