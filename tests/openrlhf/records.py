"""What a rank leaves of a case."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass
class Record:
    """One case on one rank.

    Attributes:
        before: the parameters, whole, before the first step; on the first rank alone.
        after: after the last.
        rows: of every micro-batch, in order.
        status: what `ppo_train` returned.
        rate: of the optimizer.
        kinds: of the trainer and of DeepSpeed's optimizer.
        average: state of the moving averages before the step, where it is recorded.
    """

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    rows: list[list[int]]
    status: dict[str, float]
    rate: float
    kinds: list[str] = field(default_factory=list)
    average: dict[str, Any] = field(default_factory=dict)

    def gradient(self) -> dict[str, Tensor]:
        """Of a single plain gradient step: what the parameters have moved by."""
        return {
            n: (w.double() - self.after[n].double()) / self.rate for n, w in self.before.items()
        }


def read(folder: Path, ranks: int) -> list[dict[str, Record]]:
    """The records of all ranks."""
    return [torch.load(folder / f"records{rank}.pt", weights_only=False) for rank in range(ranks)]
