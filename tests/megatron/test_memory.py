"""What the second gradient costs in memory beside Megatron-core's buffers, and for how long."""

from collections.abc import Callable, Sequence

import pytest
import torch

from tests.distributed.variants import STOCK, VARIANTS
from tests.megatron.cases import CASES, EXACT, LAYOUTS, OFFLOADED, MegatronCase, stock
from tests.megatron.conftest import MegatronRuns
from tests.megatron.records import MegatronRecord
from tests.support.megatron_layout import Layout

OURS = [
    pytest.param(c, id=c.name)
    for c in CASES
    if c.recipe in (EXACT, OFFLOADED)
    and c.variant != STOCK
    and c.layout in LAYOUTS
    and VARIANTS[c.variant].blocks == "mlp"
]
OFFLOADED_CASES = [pytest.param(c, id=c.name) for c in CASES if c.recipe == OFFLOADED]


def _bytes(
    records: Sequence[MegatronRecord], layout: Layout, size: Callable[[MegatronRecord], int]
) -> float:
    """Of what all ranks own of the buffers."""
    owners = layout.data if layout.distributed_optimizer else 1
    return sum(size(record) * record.element_size for record in records) / owners


def of_the_scope(records: Sequence[MegatronRecord], layout: Layout) -> float:
    """Bytes of the scope's share of what all ranks own of the buffers."""
    return _bytes(records, layout, lambda record: record.mlps)


@pytest.mark.parametrize("case", OURS)
def test_only_the_scope_s_share_is_held_beside_the_buffers(
    case: MegatronCase, runs: MegatronRuns
) -> None:
    """Once; with halves one more of either objective. And what is small: norms, set aside."""
    records = runs.records(case)
    held = sum(record.held for record in records)
    scope = of_the_scope(records, case.layout)
    norms = _bytes(records, case.layout, lambda record: record.copies)
    times = 3 if VARIANTS[case.variant].halves else 1
    assert times * scope <= held <= times * scope + norms
    # So that another copy of anything would be seen.
    assert norms < 0.06 * scope


@pytest.mark.parametrize("case", [c for c in OURS if not VARIANTS[c.values[0].variant].halves])
def test_less_than_what_a_rank_owns_of_the_buffers(case: MegatronCase, runs: MegatronRuns) -> None:
    records = runs.records(case)
    owned = _bytes(records, case.layout, lambda record: sum(record.buckets))
    assert sum(record.held for record in records) < 0.6 * owned


@pytest.mark.parametrize("case", OURS)
def test_nothing_of_it_outlives_the_step(case: MegatronCase, runs: MegatronRuns) -> None:
    """Of all tensors, those of the stock engine alone: its optimizer's state."""
    scope = of_the_scope(runs.records(case), case.layout) / case.layout.ranks
    for ours, theirs in zip(runs.records(case), runs.records(stock(case)), strict=True):
        # The metrics of a step, and what a pipeline has received last, are a little.
        assert abs(ours.kept - theirs.kept) < 0.05 * scope


@pytest.mark.parametrize("case", OFFLOADED_CASES)
def test_offloading_frees_the_buffers(case: MegatronCase, runs: MegatronRuns) -> None:
    """After every step; otherwise the cases below would say nothing."""
    for record in runs.records(case):
        assert record.left_in_buffers == [0, 0]


def test_offloading_changes_nothing_for_the_optimizer(runs: MegatronRuns) -> None:
    """The second step of the same batch finds the gradients of the first."""
    # Random probes are others in every step.
    for case in [c for c in OFFLOADED_CASES if not VARIANTS[c.values[0].variant].probes]:
        first, second = runs.records(case.values[0])[0].steps
        assert first.gradient.keys() == second.gradient.keys()
        for name, gradient in first.gradient.items():
            torch.testing.assert_close(second.gradient[name], gradient, rtol=1e-12, atol=1e-15)
