"""Routes that a rollout could have recorded, for veRL's router replay (R2)."""

from typing import Any

import torch
from verl.utils import tensordict_utils

from tests.oracle.architecture import Architecture


def with_routes(batch: Any, architecture: Architecture, seed: int) -> Any:
    """The batch with experts drawn at random, so that no pass finds the same ones by itself.

    Args:
        batch: as `verl_batch` makes it; changed in place.
        architecture: with experts.
        seed: of the generator.
    """
    generator = torch.Generator().manual_seed(seed)

    def routes(tokens: int) -> torch.Tensor:
        shape = (tokens, architecture.layers, architecture.experts)
        order = torch.rand(shape, generator=generator).argsort(dim=-1)
        return order[..., : architecture.experts_per_token].to(torch.int16)

    lengths = batch["input_ids"].offsets().diff().tolist()
    rows = [routes(tokens) for tokens in lengths]
    batch["routed_experts"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    tensordict_utils.assign_non_tensor(batch, enable_routing_replay=True)
    return batch
