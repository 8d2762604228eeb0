"""The cases contain what they are meant to contain; otherwise the other tests prove little."""

from dataclasses import replace

import pytest

from tests.distributed.expected import Oracle
from tests.megatron.cases import CASES, LAYOUTS, PLAIN, MegatronCase
from tests.megatron.conftest import MegatronRuns
from tests.support.megatron_layout import Layout
from tests.support.tiny_model import MODELS

EVEN = MODELS["even"]


def _case(layout: str) -> MegatronCase:
    return next(c for c in CASES if c.recipe == PLAIN and c.layout.name == layout)


def test_blocks_are_in_all_three_situations(runs: MegatronRuns, oracle: Oracle) -> None:
    stock = _case("whole")
    robust = replace(stock, variant="robust_beta")
    blocks = oracle.steps(robust, runs.replicas(stock))[0].blocks.values()
    beta = PLAIN.beta
    assert any(not block.conflict for block in blocks)
    assert any(block.conflict and block.beta_effective == beta for block in blocks)
    assert any(block.conflict and block.beta_effective > beta for block in blocks)
    # Far enough from orthogonal for float32 to tell the sign.
    assert min(abs(block.cosine) for block in blocks) > 0.03


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_matrices_are_cut_over_tensor_parallel_ranks(layout: Layout, runs: MegatronRuns) -> None:
    for record in runs.records(_case(layout.name)):
        sizes = {n: s for n, s in record.shards.items() if n.endswith("mlp.linear_fc1.weight")}
        assert set(sizes.values()) == {2 * EVEN.intermediate * EVEN.hidden // layout.tensor}


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("whole", [[[1, 2, 3, 4]]]),
        ("data2", [[[1, 2, 3, 4]], [[1, 2, 3, 4]]]),
        ("pipeline2", [[[1, 2]], [[3, 4]]]),
        ("pipeline2_virtual2", [[[1], [3]], [[2], [4]]]),
    ],
)
def test_layers_are_cut_over_stages(
    layout: str, expected: list[list[list[int]]], runs: MegatronRuns
) -> None:
    assert [record.layers for record in runs.records(_case(layout))] == expected


def test_overlapping_layout_has_many_buckets(runs: MegatronRuns) -> None:
    """Whose shards, of a size that is rounded up, end somewhere inside of parameters."""
    (one,) = runs.records(_case("data2_sharded"))[0].buckets
    many = runs.records(_case("data2_sharded_overlap"))[0].buckets
    assert len(many) > EVEN.layers
    assert max(many) < one


def test_steps_are_cut_into_micro_batches(runs: MegatronRuns) -> None:
    counts = {
        layout.name: len(runs.records(_case(layout.name))[0].steps[0].micro_batches)
        for layout in LAYOUTS
    }
    assert counts == {layout.name: 16 // 4 // layout.data for layout in LAYOUTS}
