"""Every named rule on blocks of every kind: in conflict, agreeing, without s, without numbers."""

import math

import pytest
import torch
from torch import Tensor

from pcr_plugin.rules import BlockWeights, decide
from tests.unit.explicit_vectors import SEEDS, combined, gramian, pair

BETA = 0.01
RULES = ("pcr", "pcgrad", "soft", "sum", "observe")
# In conflict, agreeing, no stability gradient.
BLOCKS = [pair(0, 25, -0.6), pair(1, 25, 0.4), pair(2, 25, -0.6, norm_s=1e-9)]
VARIANCES = torch.tensor([[3.0, 1.0]] * 3, dtype=torch.float64)


def choose(
    rule: str,
    table: Tensor | None = None,
    variances: Tensor = VARIANCES,
    *,
    floor: bool = False,
    gate: bool = True,
) -> BlockWeights:
    return decide(
        rule,
        gramian(BLOCKS) if table is None else table,
        variances,
        BETA,
        fixed_alpha=0.25 if rule == "soft" else None,
        gate=gate,
        stability_floor=floor,
    )


@pytest.mark.parametrize(
    ("rule", "removed"), [("pcr", 0.75), ("pcgrad", 1.0), ("soft", 0.25), ("sum", 0.0)]
)
def test_share_of_the_conflicting_component_that_each_rule_removes(
    rule: str, removed: float
) -> None:
    decision = choose(rule)
    p, s = BLOCKS[0]
    g = combined(decision.weights, BLOCKS)[0]
    # `sum` keeps beta s as well, which the others leave out in a conflict.
    expected = (1 - removed) * (p @ s) + (BETA if rule == "sum" else 0.0) * (s @ s)
    assert (g @ s).item() == pytest.approx(expected.item(), abs=1e-14)
    assert decision.alpha[0].item() == pytest.approx(removed)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("floor", [False, True])
def test_blocks_without_a_conflict_are_stock_under_every_rule(rule: str, floor: bool) -> None:
    decision = choose(rule, floor=floor)
    assert decision.weights[1:].tolist() == [[1.0, BETA]] * 2
    assert decision.conflict.tolist() == [True, False, False]
    assert not decision.degenerate.any()


@pytest.mark.parametrize("rule", ["sum", "observe"])
@pytest.mark.parametrize("gate", [False, True])
def test_rules_that_only_watch_leave_every_block_stock(rule: str, gate: bool) -> None:
    assert choose(rule, gate=gate).weights.tolist() == [[1.0, BETA]] * 3


def test_observe_reports_what_pcr_would_do() -> None:
    watched, acted = choose("observe"), choose("pcr")
    torch.testing.assert_close(watched.alpha, acted.alpha, rtol=0, atol=0)
    assert watched.conflict.tolist() == acted.conflict.tolist()
    assert watched.weights[0].tolist() != acted.weights[0].tolist()


@pytest.mark.parametrize(
    ("variances", "same_as"),
    [([0.0, 1.0], 0.0), ([1.0, 0.0], 1.0), ([0.0, 0.0], 1.0), ([1.0, 3.0], 0.25)],
)
def test_pcr_is_soft_with_the_alpha_that_the_variances_give(
    variances: list[float], same_as: float
) -> None:
    blocks = BLOCKS[:1]
    table = torch.tensor([variances], dtype=torch.float64)
    ours = decide("pcr", gramian(blocks), table, BETA)
    fixed = decide("soft", gramian(blocks), table, BETA, fixed_alpha=same_as)
    torch.testing.assert_close(ours.weights, fixed.weights, rtol=0, atol=1e-15)


def test_without_the_gate_an_agreeing_block_loses_its_agreement() -> None:
    decision = choose("pcgrad", gate=False)
    p, s = BLOCKS[1]
    assert p @ s > 0
    assert abs(combined(decision.weights, BLOCKS)[1] @ s) < 1e-14
    assert decision.weights[1, 1] < 0  # literal Eq. 15: it climbs the KL


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 1)])
def test_a_gramian_that_is_not_finite_falls_back_and_is_counted(
    rule: str, bad: float, place: tuple[int, int]
) -> None:
    table = gramian(BLOCKS)
    table[0, place[0], place[1]] = table[0, place[1], place[0]] = bad
    for floor in (False, True):
        for gate in (False, True):
            decision = choose(rule, table, floor=floor, gate=gate)
            assert decision.weights[0].tolist() == [1.0, BETA]
            assert decision.degenerate.tolist() == [True, False, False]
            assert not decision.conflict[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [0, 1])
def test_a_variance_that_is_not_finite_falls_back_where_the_rule_reads_it(
    bad: float, column: int
) -> None:
    variances = VARIANCES.clone()
    variances[0, column] = bad
    decision = choose("pcr", variances=variances)
    assert decision.weights[0].tolist() == [1.0, BETA]
    assert decision.degenerate.tolist() == [True, False, False]
    for rule in ("pcgrad", "soft", "sum"):
        blind = choose(rule, variances=variances)
        assert not blind.degenerate.any()
        assert blind.weights.tolist() == choose(rule).weights.tolist()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", ["pcr", "pcgrad", "soft"])
def test_with_the_floor_a_rule_is_never_weaker_than_grpo(seed: int, rule: str) -> None:
    """Scales of s over 16 decades: beta ||s||^2 below and above the conflicting component."""
    blocks = [pair(seed, 9, -0.7, norm_s=10.0**k) for k in range(-5, 9)]
    variances = torch.rand(len(blocks), 2, dtype=torch.float64)
    decision = choose(rule, gramian(blocks), variances, floor=True)
    assert decision.conflict.all()
    assert torch.all(decision.weights[:, 1] >= BETA)
    assert torch.all(decision.weights[:, 0] == 1.0)


def test_the_literal_rule_can_be_weaker_than_grpo() -> None:
    """Why the preset `robust` has the floor: beta_eff = alpha 0.6 / ||s|| < beta for large s."""
    blocks = [pair(3, 9, -0.6, norm_s=1e4)]
    assert choose("pcr", gramian(blocks), VARIANCES[:1]).weights[0, 1] < BETA


def test_beta_of_zero_is_a_plain_surrogate_outside_a_conflict() -> None:
    decision = decide("pcr", gramian(BLOCKS), VARIANCES, 0.0)
    assert decision.weights[1:].tolist() == [[1.0, 0.0]] * 2
    assert decision.weights[0, 1] > 0  # the projection does not need beta
