"""Which tokens an expert of Megatron-core sees, and where its gradient therefore comes from.

Expert-parallel ranks exchange tokens, so one rank's gradient of an expert is that of all their
micro-batches. Where these ranks are data-parallel their k-th micro-batches are one unit; where
they are tensor-parallel they work on the same micro-batch, and nothing changes.
"""

from collections.abc import Sequence
from typing import Any

from pcr_plugin.config import UpdateRule
from pcr_plugin.distributed import contains, gather_lists, group_of_all, is_first_of, ranks_of
from pcr_plugin.verl.layout import MergedUnits
from pcr_plugin.verl.megatron_slices import BufferSlice


def merged_units(parts: Sequence[BufferSlice], rule: UpdateRule) -> MergedUnits | None:
    """The experts whose units are those of several data-parallel ranks.

    Every rank must call it.

    Args:
        parts: this rank's parameters.
        rule: the resolved rule.

    Returns:
        `None` where there are none, and with an estimator that does not look at micro-batches.
    """
    from megatron.core import parallel_state as mpu

    names = gather_lists([part.name for part in parts if part.of_expert_ranks], group_of_all())
    if not names or rule.settings.variance.estimator != "micro_batch":
        return None
    together: Any = mpu.get_expert_tensor_and_model_parallel_group()
    one_micro_batch = mpu.get_tensor_model_parallel_group()
    if ranks_of(together) == ranks_of(one_micro_batch) or not contains(together, one_micro_batch):
        # Those that see a slice of a micro-batch are no units: in the scope they are refused.
        return None
    return MergedUnits(
        names=names,
        group=together,
        counts_sizes=is_first_of(one_micro_batch),
        counts_units=is_first_of(together) and mpu.get_pipeline_model_parallel_rank() == 0,
    )
