"""Exponential moving average of V, `pcr.variance.ema`."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class VarianceAverage:
    """Debiased average per block and objective.

    The average is over V itself, not over alpha: V is unbiased, alpha is not.

    Args:
        decay: weight of the past, in [0, 1); 0 passes V through.
    """

    decay: float
    _sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    _weights: dict[str, tuple[float, float]] = field(default_factory=dict)

    def update(self, names: list[str], variances: Tensor, valid: Tensor) -> Tensor:
        """Take in one step's estimate and return what the rule should use.

        Args:
            names: B block names, under which the state is kept.
            variances: (B, 2) V of p and of s, possibly NaN.
            valid: (B,) whether this step says anything about the block: not where s is about 0
                and not where a number is not finite.

        Returns:
            (B, 2): the debiased average where there is one, else this step's value.
        """
        if self.decay == 0.0:
            return variances
        steps = variances.tolist()
        averaged = [
            self._update_block(name, step, usable)
            for name, step, usable in zip(names, steps, valid.tolist(), strict=True)
        ]
        return torch.tensor(averaged, dtype=variances.dtype, device=variances.device)

    def _update_block(self, name: str, step: list[float], usable: bool) -> list[float]:
        sums = self._sums.get(name, (0.0, 0.0))
        weights = self._weights.get(name, (0.0, 0.0))
        if usable and all(map(math.isfinite, step)):
            keep, take = self.decay, 1.0 - self.decay
            sums = (keep * sums[0] + take * step[0], keep * sums[1] + take * step[1])
            weights = (keep * weights[0] + take, keep * weights[1] + take)
            self._sums[name], self._weights[name] = sums, weights
        return [
            total / weight if weight > 0 else value
            for total, weight, value in zip(sums, weights, step, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The state, as a checkpoint keeps it: plain numbers under block names."""
        return {"decay": self.decay, "sums": dict(self._sums), "weights": dict(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a saved state back; the decay stays the configured one.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: the mapping has not the keys of a saved state.
        """
        missing = {"sums", "weights"} - state.keys()
        if missing:
            raise ValueError(f"the saved variance average lacks {sorted(missing)}")
        self._sums = {name: (pair[0], pair[1]) for name, pair in state["sums"].items()}
        self._weights = {name: (pair[0], pair[1]) for name, pair in state["weights"].items()}
