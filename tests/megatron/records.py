"""What a rank reports about a case, beside what it reports with FSDP."""

from dataclasses import dataclass, field

from torch import Tensor

from tests.distributed.records import CaseRecord


@dataclass(kw_only=True)
class MegatronRecord(CaseRecord):
    """A case on one rank.

    Attributes:
        layers: numbers of the layers, from 1, in each of this rank's model chunks.
        buckets: sizes of the gradient's buckets.
        mlps: elements of this rank's parts of the MLPs.
        copies: elements of what tensor-parallel ranks hold in copies.
        element_size: bytes of a number in the gradient's buffers.
        held: bytes, see `tests.megatron.memory`; only of the cases that are measured.
        kept: the same.
        left_in_buffers: bytes of parameters and gradients after every step, if they are offloaded.
        exported: weights as the rollout would get them before the first step; rank 0.
        routers: for every step what this rank's routers remember after it: the experts' bias, the
            tokens counted for it, and the losses logged since the case began.
    """

    layers: list[list[int]] = field(default_factory=list)
    buckets: list[int] = field(default_factory=list)
    mlps: int = 0
    copies: int = 0
    element_size: int = 0
    held: int = 0
    kept: int = 0
    left_in_buffers: list[int] = field(default_factory=list)
    exported: dict[str, Tensor] = field(default_factory=dict)
    routers: list[dict[str, Tensor]] = field(default_factory=list)
