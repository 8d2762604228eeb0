"""Losses that the model adds by itself: once in a step, and a part of neither gradient."""

import pytest
import torch

from tests.distributed.expected import Oracle, blocks_of, one_pass, relative_errors
from tests.distributed.variants import STOCK, VARIANTS
from tests.megatron.auxiliary_cases import (
    AGAINST_ORACLE,
    AGAINST_STOCK,
    AUXILIARY_CASES,
    MEASURED,
    MISTAKEN_AUXILIARY,
    OBSERVED,
    PREDICTING,
    stock_with,
    stock_without,
)
from tests.megatron.cases import CASES, EXPERT_LAYOUTS, MOE, MegatronCase
from tests.megatron.conftest import MegatronRuns
from tests.megatron.test_memory import of_the_scope
from tests.megatron.test_rules import TOLERANCE, assert_every_block, with_metrics
from tests.support.distances import Gradient, difference, norm
from tests.support.tiny_model import MODELS

ORACLE = [pytest.param(c, id=c.name) for c in AGAINST_ORACLE]
SUMMED = [pytest.param(c, id=c.name) for c in AGAINST_STOCK]
OURS = [pytest.param(c, id=c.name) for c in AUXILIARY_CASES if c.variant != STOCK]
IN_MEMORY = [case for case in ORACLE if case.values[0].layout == MEASURED]
# Of the same layouts, with a coefficient in the configuration and no loss that has it.
WITHOUT = [c for c in CASES if c.recipe == MOE and c.layout in EXPERT_LAYOUTS]


def gradient(case: MegatronCase, runs: MegatronRuns) -> Gradient:
    """The combined gradient of the first step."""
    return runs.records(case)[0].steps[0].gradient


def added(case: MegatronCase, runs: MegatronRuns) -> Gradient:
    """The gradient of the model's own losses, from the stock engine; of more layers, if it adds
    these for them.
    """
    without = gradient(stock_without(case), runs)
    return {
        name: values - without[name] if name in without else values
        for name, values in gradient(stock_with(case), runs).items()
    }


@pytest.mark.parametrize("case", ORACLE)
def test_their_gradient_is_added_to_what_the_rule_makes_of_the_others(
    case: MegatronCase, runs: MegatronRuns, oracle: Oracle
) -> None:
    assert norm(added(case, runs)) > 0.1 * norm(gradient(stock_without(case), runs))
    assert largest_error(case, case, runs, oracle) < TOLERANCE["fp64"]


@pytest.mark.parametrize("case", MISTAKEN_AUXILIARY, ids=lambda case: case.name)
def test_a_mistake_is_visible(case: MegatronCase, runs: MegatronRuns, oracle: Oracle) -> None:
    rightly = next(c for c in AGAINST_ORACLE if (c.layout, c.variant) == (case.layout, "paper"))
    assert largest_error(case, rightly, runs, oracle) > 1e-3


def largest_error(
    case: MegatronCase, rightly: MegatronCase, runs: MegatronRuns, oracle: Oracle
) -> float:
    """Of a block or the rest of the model, in any step; without the losses' own gradient.

    Args:
        case: whose gradients.
        rightly: the same, or the one from whose micro-batches the right gradients are computed.
        runs: all records.
        oracle: of p and s alone.
    """
    blocks, own, errors = blocks_of(MODELS[case.recipe.model], "mlp"), added(case, runs), []
    expected = oracle.steps(rightly, runs.replicas(rightly))
    for ours, theirs in zip(runs.records(case)[0].steps, expected, strict=True):
        others = difference(ours.gradient, own)
        errors += relative_errors(others, theirs, blocks).values()
        # Layers that the oracle does not know have no other gradient.
        unknown = {name: others[name] for name in others.keys() - theirs.gradient.keys()}
        errors.append(norm(unknown) / norm(own))
    return max(errors)


@pytest.mark.parametrize("case", ORACLE)
def test_statistics_know_nothing_of_them(
    case: MegatronCase, runs: MegatronRuns, oracle: Oracle
) -> None:
    """Cosine, alpha and variances are those of p and s."""
    assert_every_block(case, runs, oracle)


@pytest.mark.parametrize("case", SUMMED)
def test_sum_is_the_stock_gradient(case: MegatronCase, runs: MegatronRuns) -> None:
    """In fp16 the third gradient has the loss scale, too."""
    stock = gradient(stock_with(case), runs)
    distance = norm(difference(gradient(case, runs), stock)) / norm(stock)
    assert distance < TOLERANCE[case.recipe.precision]
    assert distance < 0.1 * norm(added(case, runs)) / norm(stock)


@pytest.mark.parametrize("case", OBSERVED, ids=lambda case: case.name)
def test_observe_is_the_stock_update(case: MegatronCase, runs: MegatronRuns) -> None:
    """Bit by bit, and what it reports is of p and s alone."""
    ours, stock = runs.records(case), runs.records(stock_with(case))
    assert [r.steps[0].digest for r in ours] == [r.steps[0].digest for r in stock]
    for name, values in gradient(stock_with(case), runs).items():
        assert torch.equal(gradient(case, runs)[name], values), name
    acting = next(c for c in AGAINST_ORACLE if (c.layout, c.variant) == (case.layout, "paper"))
    seen = with_metrics(ours, 0).metrics
    done = with_metrics(runs.records(acting), 0).metrics
    for name in ("cos", "conflict_rate", "var_pla", "var_sta"):
        assert seen[f"pcr/{name}"] == done[f"pcr/{name}"]


@pytest.mark.parametrize("case", PREDICTING, ids=lambda case: case.name)
def test_losses_of_later_tokens_are_logged_as_stock_logs_them(
    case: MegatronCase, runs: MegatronRuns
) -> None:
    """Also in two halves, of which veRL would report the first one's."""
    name = "mtp_losses/mtp_1_loss"
    ours, stock = (with_metrics(runs.records(c), 0).metrics for c in (case, stock_with(case)))
    assert ours[name] == pytest.approx(stock[name], rel=1e-12)


@pytest.mark.parametrize("case", OURS)
def test_all_ranks_agree_to_the_last_bit(case: MegatronCase, runs: MegatronRuns) -> None:
    for steps in zip(*(record.steps for record in runs.records(case)), strict=True):
        assert len({step.digest for step in steps}) == 1


@pytest.mark.parametrize("case", [*AUXILIARY_CASES, *WITHOUT], ids=lambda case: case.name)
def test_passes(case: MegatronCase, runs: MegatronRuns) -> None:
    """Two under a rule and a third of the losses alone, where there are some. `observe` ends with
    the stock pass, and needs none of the losses alone.
    """
    acts = case.variant not in (STOCK, "observe")
    expected = (case.variant == STOCK) or 2 + (not acts or case in AUXILIARY_CASES)
    rows = 16 // case.layout.data
    for record in runs.records(case):
        for step in record.steps:
            assert sum(map(len, step.micro_batches)) == expected * rows
            if not VARIANTS[case.variant].halves:
                assert len(one_pass(step.micro_batches)) * expected == len(step.micro_batches)


@pytest.mark.parametrize("case", IN_MEMORY)
def test_one_share_of_the_scope_more_is_held(case: MegatronCase, runs: MegatronRuns) -> None:
    records = runs.records(case)
    times = 4 if VARIANTS[case.variant].halves else 2
    assert sum(record.held for record in records) == times * of_the_scope(records, case.layout)
    for ours, theirs in zip(records, runs.records(stock_with(case)), strict=True):
        assert abs(ours.kept - theirs.kept) < 0.05 * of_the_scope(records, case.layout)
