"""Seconds of a collective: a latency per step and a bandwidth, nothing overlapped."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from benchmarks.scaling.expected import Collective


@dataclass(frozen=True, kw_only=True)
class Network:
    """Machines of eight GPUs. Assumed, not measured.

    Args:
        gpus: per machine.
        latency: seconds of a step inside a machine.
        latency_between: seconds of a step between machines.
        bandwidth: bytes per second and GPU and direction inside a machine.
        bandwidth_between: bytes per second and machine and direction.
    """

    gpus: int = 8
    latency: float = 3e-6
    latency_between: float = 10e-6
    bandwidth: float = 450e9
    bandwidth_between: float = 8 * 400e9 / 8

    def seconds(self, collective: Collective, ranks: int) -> float:
        """Of all repetitions of a collective.

        A logarithmic number of steps, and every byte once through the narrowest place, as many as
        a ring sends: (N - 1) / N of the whole tensor. An all-reduce is twice that. Real libraries
        need longer, above all for many ranks.

        Args:
            collective: see there.
            ranks: that share it.
        """
        inside, machines = min(ranks, self.gpus), max(ranks / self.gpus, 1.0)
        steps = log2(inside) * self.latency + log2(machines) * self.latency_between
        narrowest = self.bandwidth if machines == 1 else self.bandwidth_between
        sent = collective.bytes * (ranks - 1) / ranks / narrowest
        phases = 2 if collective.kind == "all-reduce" else 1
        return collective.times * phases * (steps + sent)


def total(
    network: Network, found: Sequence[Collective], ranks: int, whose: str
) -> tuple[int, float, float]:
    """What one part of a step's communication comes to.

    Args:
        network: see there.
        found: of a step.
        ranks: that share the model.
        whose: the part.

    Returns:
        Number of collectives, bytes that a rank sends, seconds.
    """
    mine = [one for one in found if one.whose == whose]
    phases = {"all-reduce": 2}
    sent = sum(one.times * one.bytes * phases.get(one.kind, 1) for one in mine)
    seconds = sum(network.seconds(one, ranks) for one in mine)
    return sum(one.times for one in mine), sent * (ranks - 1) / ranks, seconds
