"""What the passes of a step leave behind."""

from collections.abc import Callable
from typing import NamedTuple

from pcr_plugin.gradients import Local


class GradientPair(NamedTuple):
    """Two gradients, in the basis in which they were computed.

    Attributes:
        stability: local shards of s.
        mix: the host holds p + mix s in the scope; outside of it p + beta s.
        rounding: a p that is shorter than this many times beta s is what rounding has left of none.
        added: local shards of the gradient of the losses that the model adds by itself.
        problem: why these gradients would be wrong, with the remedy; empty if they are right.
    """

    stability: Local
    mix: float = 0.0
    rounding: float = 0.0
    added: Local | None = None
    problem: str = ""


# Computes both gradients, given beta.
Passes = Callable[[float], GradientPair]
