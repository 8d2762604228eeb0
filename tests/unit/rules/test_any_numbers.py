"""Any two gradients and variances, from 1e-30 to 1e30: what every decision has to hold to."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcr_plugin.rules import BlockWeights, decide

RULES = ("pcr", "pcgrad", "soft", "sum", "observe")
PROJECTING = ("pcr", "pcgrad", "soft")
ROUNDING = 1e-9


def powers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of every size between two powers of ten."""
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


scales = powers(-30, 30)
# Of the norms of p and s: where neither is the other's rounding noise.
ratios = powers(-9, 4)
unit = st.floats(0, 1)
betas = st.just(0.0) | scales
variances = st.just(0.0) | scales
norms = st.just(0.0) | scales


@dataclass(frozen=True)
class Case:
    """One block and the options of a decision."""

    p: float
    s: float
    cosine: float
    variances: tuple[float, float]
    beta: float
    alpha: float
    options: dict[str, Any]

    @property
    def gramian(self) -> Tensor:
        product = self.p * self.s * self.cosine
        rows = [[self.p * self.p, product], [product, self.s * self.s]]
        return torch.tensor([rows], dtype=torch.float64)

    def decide(self, rule: str) -> BlockWeights:
        own = {"fixed_alpha": self.alpha} if rule == "soft" else {}
        spread = torch.tensor([self.variances], dtype=torch.float64)
        return decide(rule, self.gramian, spread, self.beta, **own, **self.options)


options = st.fixed_dictionaries(
    {
        "gate": st.booleans(),
        "min_cosine": st.just(0.0) | unit,
        "stability_floor": st.booleans(),
    }
)
cases = st.builds(
    Case,
    p=norms,
    s=norms,
    cosine=st.floats(-1, 1),
    variances=st.tuples(variances, variances),
    beta=betas,
    alpha=unit,
    options=options,
)


@pytest.mark.parametrize("rule", RULES)
@given(case=cases)
@settings(derandomize=True, max_examples=200)
def test_weights_are_finite_and_that_of_p_is_1(rule: str, case: Case) -> None:
    found = case.decide(rule)
    assert torch.isfinite(found.weights).all()
    assert found.weights[0, 0] == 1
    assert 0 <= found.alpha <= 1
    assert not found.degenerate


@pytest.mark.parametrize("rule", RULES)
@given(case=cases)
@settings(derandomize=True, max_examples=200)
def test_without_a_conflict_it_is_the_sum(rule: str, case: Case) -> None:
    found = case.decide(rule)
    if not found.conflict or rule not in PROJECTING:
        assert found.weights[0, 1] == case.beta
    if case.p == 0 or case.s == 0 or (case.options["gate"] and case.cosine >= 0):
        assert not found.conflict


@pytest.mark.parametrize("rule", PROJECTING)
@given(case=cases)
@settings(derandomize=True, max_examples=200)
def test_in_a_conflict_what_is_left_of_it_is_what_alpha_says(rule: str, case: Case) -> None:
    """<p + w s, s> = (1 - alpha) <p, s> without the floor (Eq. 15), and no less with it."""
    found = case.decide(rule)
    if not found.conflict:
        return
    product, square = case.gramian[0, 0, 1], case.gramian[0, 1, 1]
    left = product + found.weights[0, 1] * square
    wanted = (1 - found.alpha[0]) * product
    rounding = ROUNDING * product.abs() + 1e-300  # below are numbers with few digits
    assert found.weights[0, 1] >= 0 or product > 0
    if case.options["stability_floor"]:
        assert found.weights[0, 1] >= case.beta
        assert left >= wanted - rounding
    else:
        assert (left - wanted).abs() <= rounding


@pytest.mark.parametrize("rule", ["pcgrad", "soft"])
@given(case=cases, s=powers(-12, 12), b=powers(-8, 8), before=ratios, after=ratios)
@settings(derandomize=True, max_examples=200)
def test_units_of_the_losses_do_not_matter(
    rule: str, case: Case, s: float, b: float, before: float, after: float
) -> None:
    """a p + (a w) s = a p + (a w / b) (b s), if beta is in the same units."""
    a = after * b / before
    one = replace(case, p=before * s, s=s)
    other = replace(one, p=one.p * a, s=one.s * b, beta=one.beta * a / b)
    ours, theirs = one.decide(rule).weights[0, 1], other.decide(rule).weights[0, 1]
    assert theirs * b / a == pytest.approx(float(ours), rel=1e-6, abs=1e-300)


@pytest.mark.parametrize("rule", RULES)
@given(
    case=cases,
    place=st.sampled_from([(0, 0), (0, 1), (1, 1)]),
    value=st.sampled_from([float("nan"), float("inf"), float("-inf")]),
)
@settings(derandomize=True, max_examples=100)
def test_a_block_that_is_not_finite_gets_the_sum_and_says_so(
    rule: str, case: Case, place: tuple[int, int], value: float
) -> None:
    gramian = case.gramian.repeat(2, 1, 1)
    i, j = place
    gramian[1, i, j] = gramian[1, j, i] = value
    spread = torch.tensor([case.variances] * 2, dtype=torch.float64)
    own = {"fixed_alpha": case.alpha} if rule == "soft" else {}
    found = decide(rule, gramian, spread, case.beta, **own, **case.options)
    assert found.degenerate.tolist() == [False, True]
    assert found.weights[1].tolist() == [1, case.beta]
    # Nothing of it reaches another block.
    assert found.weights[0].tolist() == case.decide(rule).weights[0].tolist()


@given(case=cases)
@settings(derandomize=True, max_examples=200)
def test_more_certainty_of_s_is_more_projection(case: Case) -> None:
    """alpha rises with V_pla and falls with V_sta (Eq. 13)."""
    more = Case(
        case.p, case.s, case.cosine, (case.variances[0], case.variances[1] * 2 + 1e-31),
        case.beta, case.alpha, case.options,
    )  # fmt: skip
    assert more.decide("pcr").alpha <= case.decide("pcr").alpha
