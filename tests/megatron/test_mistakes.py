"""Negative controls: what every mistake of `mistakes` spoils is seen by the comparison."""

import math
from collections.abc import Sequence

import pytest

from tests.distributed.expected import Oracle, blocks_of, relative_errors
from tests.megatron.auxiliary_cases import MISTAKEN_AUXILIARY
from tests.megatron.conftest import MegatronRuns
from tests.megatron.mistaken_cases import MISTAKEN, MistakenCase
from tests.megatron.mistakes import MISTAKES
from tests.megatron.records import MegatronRecord
from tests.megatron.router_cases import MISTAKEN_ROUTERS
from tests.megatron.test_rules import TOLERANCE, with_metrics
from tests.oracle.rule import BlockResult, Step
from tests.support.tiny_model import MODELS

# Far above the tolerance of float64 and around that of float32.
VISIBLE = 1e-6

SPOILED = [pytest.param(c, id=c.name) for c in MISTAKEN if not c.fails]
NOTICED = [pytest.param(c, id=c.name) for c in MISTAKEN if c.fails]
RIGHTLY = [
    pytest.param(c, id=c.rightly.name)
    for c in {mistaken.rightly.name: mistaken for mistaken in MISTAKEN}.values()
]


def errors(
    expected: Step, case: MistakenCase, records: Sequence[MegatronRecord]
) -> dict[str, float]:
    """The largest error of every quantity in the first step.

    Args:
        expected: what the oracle says.
        case: with or without the mistake.
        records: of all ranks.

    Returns:
        `cos` and `alpha`, absolute; `var_pla`, `var_sta` and `gradient`, relative.
    """
    metrics = with_metrics(list(records), 0).metrics
    blocks = [(metrics, f"pcr/block/{label}/", b) for label, b in expected.blocks.items()]
    variances = [block.variances for block in expected.blocks.values() if block.variances]
    means = [sum(column) / len(variances) for column in zip(*variances, strict=True)]
    parts = blocks_of(MODELS[case.recipe.model], "mlp")
    return {
        "cos": max(abs(metrics[name + "cos"] - block.cosine) for _, name, block in blocks),
        "alpha": max(_alpha_error(*block) for block in blocks),
        "var_pla": abs(metrics["pcr/var_pla"] / means[0] - 1),
        "var_sta": abs(metrics["pcr/var_sta"] / means[1] - 1),
        "gradient": max(relative_errors(records[0].steps[0].gradient, expected, parts).values()),
    }


def _alpha_error(metrics: dict[str, float], name: str, block: BlockResult) -> float:
    """Infinite where a conflict was missed or made up."""
    if (name + "alpha" in metrics) != block.conflict:
        return math.inf
    return abs(metrics[name + "alpha"] - block.alpha) if block.conflict else 0.0


def _expected(case: MistakenCase, runs: MegatronRuns, oracle: Oracle) -> Step:
    """From the micro-batches that the case without the mistake has seen."""
    return oracle.steps(case, runs.replicas(case.rightly))[0]


@pytest.mark.parametrize("case", RIGHTLY)
def test_without_the_mistake_everything_agrees(
    case: MistakenCase, runs: MegatronRuns, oracle: Oracle
) -> None:
    """Otherwise anything could be what the comparison sees below."""
    found = errors(_expected(case, runs, oracle), case, runs.records(case.rightly))
    assert max(found.values()) < TOLERANCE["fp64"], found


@pytest.mark.parametrize("case", SPOILED)
def test_a_mistake_is_visible(case: MistakenCase, runs: MegatronRuns, oracle: Oracle) -> None:
    found = errors(_expected(case, runs, oracle), case, runs.records(case))
    for quantity in case.spoils:
        assert found[quantity] > VISIBLE, found


@pytest.mark.parametrize("case", NOTICED)
def test_a_mistake_stops_the_run(case: MistakenCase, runs: MegatronRuns) -> None:
    for record in runs.records(case):
        assert "more than once in one of" in record.error
        assert "pcr.variance.estimator=split_half" in record.error


def test_every_mistake_is_made() -> None:
    made = {case.mistake for case in (*MISTAKEN, *MISTAKEN_ROUTERS, *MISTAKEN_AUXILIARY)}
    assert made == set(MISTAKES)
    assert all(case.spoils or case.fails for case in MISTAKEN)
