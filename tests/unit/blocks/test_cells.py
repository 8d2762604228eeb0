"""Blocks taken apart where the units of their parameters differ."""

import pytest

from pcr_plugin.blocks import Cells, cells, partition

MOE = [
    f"decoder.layers.{layer}.mlp.{part}.weight"
    for layer in range(2)
    for part in (
        "router",
        "experts.local_experts.0.linear_fc1",
        "experts.local_experts.1.linear_fc1",
        "shared_experts.linear_fc1",
    )
]
EXPERTS = [name for name in MOE if ".experts." in name]


def test_blocks_of_one_kind_stay_whole() -> None:
    blocks = partition(MOE, "mlp")
    assert cells(blocks, ()) == Cells(blocks, (0, 1), (False, False))
    assert cells(blocks, MOE) == Cells(blocks, (0, 1), (True, True))


def test_experts_come_apart_from_what_every_rank_has() -> None:
    blocks = partition(MOE, "mlp")
    found = cells(blocks, EXPERTS)
    assert found.block_of == (0, 0, 1, 1)
    assert found.merged == (False, True, False, True)
    shared, experts = found.parts[2:]
    assert shared.parameters == ("decoder.layers.1.mlp.shared_experts.linear_fc1.weight",)
    assert experts.parameters == tuple(name for name in EXPERTS if ".layers.1." in name)


@pytest.mark.parametrize("kind", ["module", "tensor", "global"])
def test_every_parameter_is_in_one_cell_of_its_block(kind: str) -> None:
    blocks = partition(MOE, "mlp", kind)
    found = cells(blocks, EXPERTS)
    members = [
        (block, name)
        for block, part in zip(found.block_of, found.parts, strict=True)
        for name in part.parameters
    ]
    expected = [(i, name) for i, block in enumerate(blocks) for name in block.parameters]
    assert sorted(members) == sorted(expected)
