"""Which slots an engine of DeepSpeed has, and which of its settings they can be trusted with."""

from typing import Any

import deepspeed
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

from pcr_plugin.config.checks import reject
from pcr_plugin.openrlhf.slots import Slots
from pcr_plugin.openrlhf.slots_partitioned import PartitionedSlots
from pcr_plugin.openrlhf.slots_replicated import ReplicatedSlots
from pcr_plugin.openrlhf.slots_sharded import ShardedSlots
from pcr_plugin.openrlhf.tested import TESTED


def slots_of(engine: Any) -> Slots:
    """The slots of an engine that `deepspeed.initialize` has built.

    Args:
        engine: DeepSpeed's engine.

    Raises:
        ValueError: a release or a setting that has not been shown to be right.
    """
    releases = TESTED["deepspeed"]
    if deepspeed.__version__.split("+")[0] not in releases:
        reject("deepspeed", deepspeed.__version__, "tested with " + ", ".join(releases))
    stage = engine.zero_optimization_stage()
    kind = type(engine.optimizer)
    if stage == 3 and kind is DeepSpeedZeroOptimizer_Stage3:
        return ShardedSlots(engine)
    if stage in (1, 2) and kind is DeepSpeedZeroOptimizer:
        if not engine.optimizer.contiguous_gradients:
            reject(
                "zero_optimization.contiguous_gradients",
                False,
                "DeepSpeed 0.19.6 then reduces wrongly, with or without a rule; leave it at true",
            )
        return PartitionedSlots(engine)
    # In float32 DeepSpeed then steps with the plain optimizer, in bf16 with a copy in float32; both
    # read `parameter.grad`.
    if stage == 0:
        return ReplicatedSlots(engine)
    reject("--ds.zero_stage", f"{stage} ({kind.__name__})", "DeepSpeed's plain ZeRO optimizers")
    raise AssertionError("unreachable")
