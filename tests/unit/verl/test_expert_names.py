"""Experts are counted over all expert-parallel ranks, however Megatron-core spells them."""

import pytest

from pcr_plugin.blocks import partition
from pcr_plugin.verl.megatron_slices import _count_experts

MLP = "module.module.decoder.layers.1.mlp"
# The second of two ranks with four experts each.
FIRST = {MLP: 4}


@pytest.mark.parametrize(
    ("here", "in_model"),
    [
        # A module per expert, and TransformerEngine's numbered tensors.
        ("experts.local_experts.3.linear_fc2.weight", "experts.local_experts.7.linear_fc2.weight"),
        ("experts.linear_fc1.weight0", "experts.linear_fc1.weight4"),
        ("experts.linear_fc2.bias3", "experts.linear_fc2.bias7"),
        # One tensor for all experts of a rank has no number: it is a part of a larger one.
        ("experts.weight1", "experts.weight1"),
        ("shared_experts.linear_fc1.weight", "shared_experts.linear_fc1.weight"),
        ("router.weight", "router.weight"),
    ],
)
def test_numbers(here: str, in_model: str) -> None:
    assert _count_experts(f"{MLP}.{here}", FIRST) == f"{MLP}.{in_model}"


def test_other_layers_and_dense_models_keep_their_names() -> None:
    dense = "module.module.decoder.layers.11.mlp.experts.local_experts.0.linear_fc1.weight"
    assert _count_experts(dense, FIRST) == dense
    assert _count_experts(dense, {}) == dense


@pytest.mark.parametrize("experts", ["local_experts.{}.linear_fc1.weight", "linear_fc1.weight{}"])
def test_all_experts_and_shared_ones_are_one_block_without_router_and_gate(experts: str) -> None:
    mlp = "decoder.layers.3.mlp"
    inside = [f"{mlp}.experts.{experts.format(number)}" for number in range(4)]
    inside.append(f"{mlp}.shared_experts.linear_fc2.weight")
    outside = [f"{mlp}.router.weight", f"{mlp}.router.bias", f"{mlp}.shared_experts.gate_weight"]
    (block,) = partition([*outside, *inside], "mlp")
    assert (block.name, block.parameters) == (mlp, tuple(inside))
    assert len(partition([*outside, *inside], "mlp", "tensor")) == len(inside)
