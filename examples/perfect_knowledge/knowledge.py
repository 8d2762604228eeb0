"""Rules that know more or less: from what is seen in a step to the weights of p and s."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pcr_plugin.rules import decide
from pcr_plugin.statistics import scaled_variances, variance_of_total


class Knowledge(NamedTuple):
    """What a rule may look at. Groups are the answers to one prompt and independent.

    Attributes:
        p: (G, d) parts of the mini-batch's p.
        s: (G, d) of its s.
        expected_p: (d,) what p is on average, which no run knows.
        expected_s: (d,) the same of s.
    """

    p: Tensor
    s: Tensor
    expected_p: Tensor
    expected_s: Tensor

    def gramian(self) -> Tensor:
        """(1, 2, 2) of the mini-batch."""
        return _gramian(self.p.sum(dim=0), self.s.sum(dim=0))

    def known_gramian(self) -> Tensor:
        """(1, 2, 2) of the expectations."""
        return _gramian(self.expected_p, self.expected_s)

    def variances(self) -> Tensor:
        """(1, 2) V_pla and V_sta (Eq. 10), with prompts as units."""
        count = torch.tensor(len(self.p))
        spread = torch.stack([len(g) * g.square().sum() for g in (self.p, self.s)])
        return variance_of_total(spread, self.gramian()[0].diagonal(), count)[None]

    def unbiased_gramian(self) -> Tensor:
        """(1, 2, 2) without the terms that p and s have from the same samples.

        Products of different prompts' parts alone, for p.s, and norms less their V.
        """
        found = self.gramian()
        crossed = (self.p * self.s).sum()
        pairs = len(self.p) / (len(self.p) - 1)
        found[0, 0, 1] = found[0, 1, 0] = (found[0, 0, 1] - crossed) * pairs
        found[0].diagonal().sub_(self.variances()[0]).clamp_(min=0)
        return found


# (2,) weights of p and of s.
Rule = Callable[[Knowledge, float], Tensor]


def _gramian(p: Tensor, s: Tensor) -> Tensor:
    both = torch.stack([p, s])
    return (both @ both.T)[None]


def _decided(
    rule: str,
    gramian: Tensor,
    variances: Tensor,
    beta: float,
    floor: bool,
    alpha: float | None = None,
) -> Tensor:
    found = decide(rule, gramian, variances, beta, stability_floor=floor, fixed_alpha=alpha)
    return found.weights[0]


def _by_variance(scale: str, floor: bool) -> Rule:
    def weights(known: Knowledge, beta: float) -> Tensor:
        gramian = known.gramian()
        variances = scaled_variances(known.variances(), gramian, beta, scale)
        return _decided("pcr", gramian, variances, beta, floor)

    return weights


def _projected(gramian: Callable[[Knowledge], Tensor]) -> Rule:
    """Alpha 1 with the floor, decided on a Gramian."""

    def weights(known: Knowledge, beta: float) -> Tensor:
        return _decided("pcgrad", gramian(known), known.variances(), beta, True)

    return weights


STOCK = "stock"


def _fixed(alpha: float) -> Rule:
    def weights(known: Knowledge, beta: float) -> Tensor:
        return _decided("soft", known.gramian(), known.variances(), beta, True, alpha)

    return weights


RULES: Mapping[str, Rule] = {
    STOCK: lambda known, beta: _decided("sum", known.gramian(), known.variances(), beta, False),
    "alpha 1": _projected(Knowledge.gramian),
    **{f"alpha {alpha}": _fixed(alpha) for alpha in (0.05, 0.1, 0.2, 0.5)},
    "absolute, no floor": _by_variance("absolute", False),
    "absolute": _by_variance("absolute", True),
    "relative": _by_variance("relative", True),
    "beta": _by_variance("beta", True),
    "alpha 1, noise taken out": _projected(Knowledge.unbiased_gramian),
    "alpha 1, expectations known": _projected(Knowledge.known_gramian),
}
