"""What a rank reports about a case."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(kw_only=True)
class StepRecord:
    """One optimizer step as one rank saw it.

    Attributes:
        gradient: whole gradients as the optimizer's step finds them, before clipping; rank 0.
        norm: the gradient norm that veRL returns.
        metrics: metric name to this rank's aggregated value.
        micro_batches: rows of every micro-batch, in the order of the forward passes.
        unreached: places of the micro-batches whose surrogate is not run backward.
        random_state: of the generator, after the step.
        weights: whole weights after the step; rank 0.
        digest: of the whole weights as this rank gathers them.
        average: state of the moving average of the variances, if there is one.
    """

    gradient: dict[str, Tensor] = field(default_factory=dict)
    norm: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    micro_batches: list[list[int]] = field(default_factory=list)
    unreached: list[int] = field(default_factory=list)
    random_state: Tensor | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    digest: str = ""
    average: dict[str, Any] | None = None

    @property
    def units(self) -> set[tuple[int, ...]]:
        """Rows of every micro-batch, however often it has run forward."""
        return {tuple(rows) for rows in self.micro_batches}


@dataclass(kw_only=True)
class CaseRecord:
    """A case on one rank.

    Attributes:
        engine: name of the engine's class, with its module.
        shards: parameter name to the number of elements on this rank.
        steps: one entry per optimizer step.
        error: type and message of the error that ended it.
        rule_loaded: whether anything of the veRL integration had been imported before the case.
    """

    engine: str = ""
    shards: dict[str, int] = field(default_factory=dict)
    steps: list[StepRecord] = field(default_factory=list)
    error: str = ""
    rule_loaded: bool = False


def digest(tensors: dict[str, Tensor]) -> str:
    """A text that differs if any bit does."""
    result = hashlib.sha256()
    for tensor in tensors.values():
        result.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return result.hexdigest()


def aggregated(value: Any) -> float:
    """One number per metric, from veRL's `Metric` or its list with a value per micro-batch."""
    if hasattr(value, "aggregate"):
        return float(value.aggregate())
    return float(sum(value) / len(value))
