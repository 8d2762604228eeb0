"""Weights that are computed outside: where they apply, and what happens if they cannot."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pcr_plugin.metrics import block_metrics, step_metrics
from pcr_plugin.rules import BlockWeights, decide
from tests.unit.explicit_vectors import combined, gramian, pair

BETA = 0.01
# In conflict, agreeing, in conflict, no stability gradient.
BLOCKS = [pair(0, 25, -0.6), pair(1, 25, 0.4), pair(2, 25, -0.3), pair(3, 25, -0.6, norm_s=1e-9)]
VARIANCES = torch.full((len(BLOCKS), 2), torch.nan, dtype=torch.float64)
PROPOSED = torch.tensor([[0.3, 4.0], [2.0, 0.5]], dtype=torch.float64)


def choose(
    weigh: Callable[[Tensor], Tensor],
    *,
    beta: float = BETA,
    gate: bool = True,
    min_cosine: float = 0.0,
    table: Tensor | None = None,
) -> BlockWeights:
    return decide(
        "torchjd:Any",
        gramian(BLOCKS) if table is None else table,
        VARIANCES,
        beta,
        gate=gate,
        min_cosine=min_cosine,
        stability_floor=True,
        weigh=weigh,
    )


def never(gramians: Tensor) -> Tensor:
    raise AssertionError("nothing to weigh")


def test_weights_are_those_of_p_and_of_beta_s_and_apply_in_a_conflict_alone() -> None:
    decision = choose(lambda gramians: PROPOSED)
    (p, s), (q, r) = BLOCKS[0], BLOCKS[2]
    gradients = combined(decision.weights, BLOCKS)
    torch.testing.assert_close(gradients[0], 0.3 * p + 4.0 * (BETA * s))
    torch.testing.assert_close(gradients[2], 2.0 * q + 0.5 * (BETA * r))
    assert decision.weights[[1, 3]].tolist() == [[1.0, BETA]] * 2
    assert decision.conflict.tolist() == [True, False, True, False]
    assert not decision.degenerate.any()


def test_what_is_weighed_is_the_gramian_of_p_and_beta_s() -> None:
    seen = []

    def weigh(gramians: Tensor) -> Tensor:
        seen.append(gramians)
        return PROPOSED

    choose(weigh)
    expected = gramian([BLOCKS[i]._replace(s=BETA * BLOCKS[i].s) for i in (0, 2)])
    torch.testing.assert_close(torch.stack(seen), expected[None], rtol=1e-12, atol=0)


def test_gate_and_cosine_decide_what_is_weighed() -> None:
    assert choose(lambda g: PROPOSED[:1], min_cosine=0.5).conflict.tolist() == [True, *[False] * 3]
    everywhere = choose(lambda g: PROPOSED[[0, 0, 1]], gate=False)
    assert everywhere.conflict.tolist() == [True, True, True, False]
    assert everywhere.weights[1].tolist() == [0.3, 4.0 * BETA]


def test_nobody_is_asked_without_a_conflict() -> None:
    assert choose(never, min_cosine=0.99).weights.tolist() == [[1.0, BETA]] * 4


def test_with_a_beta_of_zero_there_is_one_gradient() -> None:
    decision = choose(never, beta=0.0)
    assert decision.weights.tolist() == [[1.0, 0.0]] * 4
    assert not decision.degenerate.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 1])
def test_a_proposal_that_is_not_finite_falls_back_and_is_counted(bad: float, column: int) -> None:
    proposed = PROPOSED.clone()
    proposed[0, column] = bad
    decision = choose(lambda gramians: proposed)
    assert decision.weights[0].tolist() == [1.0, BETA]
    assert decision.weights[2].tolist() == [2.0, 0.5 * BETA]
    assert decision.degenerate.tolist() == [True, False, False, False]
    assert decision.conflict.tolist() == [False, False, True, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gramian_that_is_not_finite_is_not_weighed(bad: float) -> None:
    table = gramian(BLOCKS)
    table[0, 0, 0] = bad
    decision = choose(lambda gramians: PROPOSED[: len(gramians)], table=table)
    assert decision.weights[0].tolist() == [1.0, BETA]
    assert decision.weights[2].tolist() == [0.3, 4.0 * BETA]
    assert decision.degenerate.tolist() == [True, False, False, False]


def test_metrics_know_no_alpha_and_the_rest() -> None:
    decision = choose(lambda gramians: PROPOSED)
    table = gramian(BLOCKS)
    values = step_metrics(table, VARIANCES, VARIANCES[:, 0], decision)
    values |= block_metrics(["a", "b", "c", "d"], table, decision)
    assert not [name for name in values if name.endswith("alpha")]
    assert all(math.isfinite(value) for value in values.values())
    assert values["pcr/conflict_rate"] == 0.5
    finals = combined(decision.weights, BLOCKS)
    mean = torch.stack([g.norm() for g in finals]).mean().item()
    assert values["pcr/norm_final"] == pytest.approx(mean)
    assert values["pcr/block/c/beta_eff"] == 0.5 * BETA
