"""Exponential moving average of V, `pcr.variance.ema`."""

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Of what `state_dict` returns.
_VERSION = 1


class _Sums(NamedTuple):
    """Of one block: V of p and of s with the weights of their steps, and these weights."""

    plasticity: float = 0.0
    stability: float = 0.0
    weight: float = 0.0


@dataclass
class VarianceAverage:
    """Debiased average per block and objective.

    The average is over V itself, not over alpha: V is nearly unbiased, alpha is not.

    Args:
        decay: weight of the past, in [0, 1); 0 passes V through.
        members: what each block consists of, by its name; a saved average of other members is not
            taken back.
    """

    decay: float
    members: Mapping[str, str] = field(default_factory=dict)
    _sums: dict[str, _Sums] = field(default_factory=dict)

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
        sums = self._sums.get(name, _Sums())
        if usable and all(map(math.isfinite, step)):
            keep, take = self.decay, 1.0 - self.decay
            found = zip(sums, (*step, 1.0), strict=True)
            sums = _Sums(*(keep * old + take * new for old, new in found))
            self._sums[name] = sums
        if not sums.weight:
            return step
        return [sums.plasticity / sums.weight, sums.stability / sums.weight]

    def state_dict(self) -> dict[str, Any]:
        """The state, as a checkpoint keeps it: three plain numbers under every block's name."""
        sums = {name: tuple(found) for name, found in self._sums.items()}
        members = dict(self.members)
        return {"version": _VERSION, "decay": self.decay, "members": members, "sums": sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a saved state back; the decay stays the configured one.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: it is not a whole state, or one of another format; nothing is changed.
        """
        if _mapping("state", state).get("version") != _VERSION:
            raise ValueError(
                f"the saved variance average has the format {state.get('version')!r}, and this "
                f"pcr-plugin reads {_VERSION}"
            )
        members, saved = _part(state, "members"), _part(state, "sums")
        found = {name: _checked(name, numbers) for name, numbers in saved.items()}
        other = {name for name in found if members.get(name) != self.members.get(name)}
        if other:
            logger.warning(
                "pcr-plugin: the saved averages of V are of other parameters (pcr.scope or "
                "pcr.block was another) and start anew in %s",
                ", ".join(sorted(other)),
            )
        self._sums = {name: sums for name, sums in found.items() if name not in other}


def _part(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in state:
        raise ValueError(f"the saved variance average lacks {name!r}")
    return _mapping(name, state[name])


def _mapping(what: str, found: Any) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise ValueError(f"the saved variance average has {found!r} as {what}, not a mapping")
    return found


def _checked(name: str, numbers: Any) -> _Sums:
    if not _are_numbers(numbers, 3) or not numbers[2] > 0:
        raise ValueError(
            f"the saved variance average has {numbers!r} for {name!r}, not three finite numbers "
            "of which the last, the weight, is above 0"
        )
    return _Sums(*map(float, numbers))


def _are_numbers(values: Any, count: int) -> bool:
    """Whether these are so many finite numbers; a JSON may hold larger ones."""
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(type(value) in (int, float) for value in values)
        and all(abs(value) <= sys.float_info.max for value in values)
    )
