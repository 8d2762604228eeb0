"""What routers do at every pass happens once a step: auxiliary losses, the bias, what is logged."""

import pytest
import torch
from torch import Tensor

from tests.distributed.variants import STOCK
from tests.megatron.cases import EXPERTS, MOE, MegatronCase, cases_of
from tests.megatron.conftest import MegatronRuns
from tests.megatron.router_cases import (
    MISTAKEN_ROUTERS,
    REPLAYED,
    ROUTER_CASES,
    TWO_STEPS,
    stock_of,
)
from tests.support.distances import difference, norm

CLOSE = 1e-12
# Of the gradient, which the auxiliary losses are a small part of.
VISIBLE = 1e-4
BIAS, COUNTED = "router.expert_bias", "router.local_tokens_per_expert"

OURS = [pytest.param(c, id=c.name) for c in ROUTER_CASES if c.variant != STOCK]
OBSERVED = [case for case in OURS if "observe" in case.id]
FROM_RECORD = [pytest.param(c, id=c.name) for c in REPLAYED if c.variant != STOCK]
MISTAKEN = [pytest.param(c, id=c.name) for c in MISTAKEN_ROUTERS]


def distance(case: MegatronCase, runs: MegatronRuns, step: int) -> float:
    """Of the combined gradient from the stock engine's, relative."""
    ours, stock = (runs.records(which)[0].steps[step].gradient for which in (case, stock_of(case)))
    return norm(difference(ours, stock)) / norm(stock)


def remembered(case: MegatronCase, runs: MegatronRuns, part: str) -> list[Tensor]:
    """Everything of one kind that the routers of all ranks remember after the last step."""
    kinds = {"bias": BIAS, "counted": COUNTED}
    return [
        values
        for record in runs.records(case)
        for name, values in sorted(record.routers[-1].items())
        if (kinds[part] in name if part in kinds else "router." not in name)
    ]


@pytest.mark.parametrize("case", OURS)
def test_gradient_is_the_stock_gradient(case: MegatronCase, runs: MegatronRuns) -> None:
    """The sum of both; in the second step from weights and a bias that the first has moved."""
    for step in range(len(TWO_STEPS.batches)):
        assert distance(case, runs, step) < CLOSE


@pytest.mark.parametrize("case", OURS)
@pytest.mark.parametrize("part", ["bias", "counted"])
def test_routers_are_left_as_stock_leaves_them(
    case: MegatronCase, part: str, runs: MegatronRuns
) -> None:
    ours, stock = (remembered(which, runs, part) for which in (case, stock_of(case)))
    assert len(ours) == len(stock)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, stock, strict=True))


@pytest.mark.parametrize("case", OURS)
def test_losses_are_logged_once(case: MegatronCase, runs: MegatronRuns) -> None:
    ours, stock = (remembered(which, runs, "logged") for which in (case, stock_of(case)))
    assert len(ours) == len(stock) > 0
    for mine, theirs in zip(ours, stock, strict=True):
        assert float(theirs.sum()) > 0
        torch.testing.assert_close(mine, theirs, rtol=CLOSE, atol=0)


@pytest.mark.parametrize("case", OBSERVED)
def test_observe_is_the_stock_update_to_the_last_bit(
    case: MegatronCase, runs: MegatronRuns
) -> None:
    ours, stock = (runs.records(which)[0].steps for which in (case, stock_of(case)))
    assert [step.digest for step in ours] == [step.digest for step in stock]
    for mine, theirs in zip(ours, stock, strict=True):
        assert all(torch.equal(mine.gradient[n], g) for n, g in theirs.gradient.items())


def test_the_bias_has_moved(runs: MegatronRuns) -> None:
    """By more than one step's size somewhere, so that the first step's change was kept."""
    biases = remembered(ROUTER_CASES[0], runs, "bias")
    assert max(float(bias.abs().max()) for bias in biases) > 0.075


@pytest.mark.parametrize("case", MISTAKEN)
def test_a_mistake_is_visible(case: MegatronCase, runs: MegatronRuns) -> None:
    spoils = getattr(case, "spoils", "")
    if spoils == "gradient":
        assert distance(case, runs, 0) > VISIBLE
        return
    ours, stock = (remembered(which, runs, spoils) for which in (case, stock_of(case)))
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(ours, stock, strict=True))


@pytest.mark.parametrize("case", FROM_RECORD)
def test_all_passes_replay_the_same_routes(case: MegatronCase, runs: MegatronRuns) -> None:
    assert distance(case, runs, 0) < CLOSE


def test_replayed_routes_are_others(runs: MegatronRuns) -> None:
    """Than those that the routers choose."""
    (chosen,) = cases_of(EXPERTS, MOE, STOCK)
    replayed, natural = (
        runs.records(which)[0].steps[0].gradient for which in (REPLAYED[0], chosen)
    )
    assert norm(difference(replayed, natural)) > 0.1 * norm(natural)
