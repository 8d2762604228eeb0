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
        routers: for every step what this rank's routers remember after it: the experts' bias, the
            tokens counted for it, and the losses logged since the case began.
    """

    layers: list[list[int]] = field(default_factory=list)
    buckets: list[int] = field(default_factory=list)
    routers: list[dict[str, Tensor]] = field(default_factory=list)
