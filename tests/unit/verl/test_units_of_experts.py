"""How many ranks' micro-batches an expert gets together, as the engine's configuration tells."""

from types import SimpleNamespace

import pytest

from pcr_plugin.verl.refusals import ranks_of_an_expert


@pytest.mark.parametrize(
    ("tensor", "of_experts", "experts", "together"),
    [
        (1, None, 1, 1),
        (1, None, 4, 4),
        (2, None, 1, 1),
        (2, None, 4, 4),
        # Experts over the tensor-parallel ranks, which have the same micro-batch.
        (2, 1, 2, 1),
        (2, 1, 8, 4),
        (4, 1, 2, 1),
    ],
)
def test_ranks(tensor: int, of_experts: int | None, experts: int, together: int) -> None:
    engine = SimpleNamespace(
        strategy="pcr:megatron",
        tensor_model_parallel_size=tensor,
        expert_tensor_parallel_size=of_experts,
        expert_model_parallel_size=experts,
    )
    assert ranks_of_an_expert(engine) == together


def test_one_rank_without_megatron() -> None:
    assert ranks_of_an_expert(SimpleNamespace(strategy="pcr:fsdp")) == 1
