"""How Megatron-core cuts a model over ranks; imports nothing, so that tests can name layouts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

_Record = TypeVar("_Record")

# Fields of TransformerConfig. Fused kernels are written for GPUs.
NO_FUSION: dict[str, Any] = {
    "masked_softmax_fusion": False,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "persist_layer_norm": False,
    "use_cpu_initialization": True,
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way to cut a model.

    Ranks are numbered as Megatron-core does it: tensor parallelism first, then data parallelism
    (in it, experts), then pipeline stages.

    Args:
        name: part of a case's name.
        tensor: tensor-parallel ranks.
        pipeline: pipeline stages.
        data: data-parallel ranks.
        virtual: model chunks per stage; `None` for one.
        sequence: sequence parallelism between tensor-parallel ranks.
        experts: expert-parallel ranks.
        expert_tensor: tensor-parallel ranks of the experts; `None` for as many as `tensor`.
        distributed_optimizer: shard the optimizer over data-parallel ranks.
        ddp: fields of Megatron-core's DistributedDataParallelConfig.
        transformer: fields of its TransformerConfig.
    """

    name: str
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    virtual: int | None = None
    sequence: bool = False
    experts: int = 1
    expert_tensor: int | None = None
    distributed_optimizer: bool = False
    ddp: tuple[tuple[str, Any], ...] = ()
    transformer: tuple[tuple[str, Any], ...] = ()

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return self.tensor * self.pipeline * self.data

    @property
    def pooled(self) -> int:
        """Data-parallel ranks that exchange the tokens of a micro-batch between their experts."""
        return max(1, self.experts * (self.expert_tensor or self.tensor) // self.tensor)

    def first_of_each_replica(self, records: Sequence[_Record]) -> list[_Record]:
        """One rank's record for every data-parallel rank: every row of a mini-batch once.

        Args:
            records: of all ranks.
        """
        return list(records[: self.tensor * self.data : self.tensor])
