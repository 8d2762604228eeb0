"""What a rank leaves of a case."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass
class StepLeft:
    """What is left of an optimizer step.

    Attributes:
        weights: digest of the whole parameters.
        state: digest of this rank's part of the optimizer's state.
        forward_passes: that the step has had.
    """

    weights: str
    state: str
    forward_passes: int


@dataclass
class Record:
    """One case on one rank.

    Attributes:
        before: the parameters, whole, before the first step.
        after: after the last.
        rows: of every micro-batch, in order.
        status: what `ppo_train` returned.
        rate: of the optimizer.
        kinds: of the trainer and of DeepSpeed's optimizer.
        average: state of the moving averages before the step, where it is recorded.
        statuses: what every call of `ppo_train` returned.
        averages: states of the moving averages after every call, with a rule.
        steps: what is left of every optimizer step.
        ended: of the run: the next random number, and DeepSpeed's counters.
    """

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    rows: list[list[int]]
    status: dict[str, float]
    rate: float
    kinds: list[str] = field(default_factory=list)
    average: dict[str, Any] = field(default_factory=dict)
    statuses: list[dict[str, float]] = field(default_factory=list)
    averages: list[dict[str, Any]] = field(default_factory=list)
    steps: list[StepLeft] = field(default_factory=list)
    ended: tuple[float, ...] = ()

    def gradient(self) -> dict[str, Tensor]:
        """Of a single plain gradient step: what the parameters have moved by."""
        return {
            n: (w.double() - self.after[n].double()) / self.rate for n, w in self.before.items()
        }


def read(folder: Path, ranks: int) -> list[dict[str, Any]]:
    """The records of all ranks, by case, and what their mistakes were told."""
    return [torch.load(folder / f"records{rank}.pt", weights_only=False) for rank in range(ranks)]
