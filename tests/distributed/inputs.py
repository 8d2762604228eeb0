"""Models and mini-batches, made once per test session and read by every rank."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.oracle.model import Weights
from tests.support.damaged import (
    with_advantage,
    with_unknown_reference,
    without_advantages,
    without_some_advantages,
)
from tests.support.mini_batches import masked, mini_batch, rejected
from tests.support.tiny_model import MODELS, perturbed, random_weights, save_checkpoint
from tests.support.trajectory import Trajectory

# Seeds with which the blocks of one model are in all three situations: in conflict with alpha c
# above beta, in conflict with alpha c below beta (the floor binds), and not in conflict.
# `test_gradients` checks it.
_MODEL_SEEDS = {
    "wide": 1,
    "narrow": 2,
    "tied": 6,
    "lora": 1,
    "moe_fused": 3,
    "moe_list": 3,
    "even": 2,
    "even_tied": 2,
    "even_normed": 2,
    "even_moe": 2,
}
_REFERENCE_DISTANCE = 0.15
# Of `few_advantages`. With two rows in a micro-batch none is without on both of two ranks until
# they are sorted, and then two are; on one rank two are without, then four.
NO_ADVANTAGE = (0, 3, 4, 5, 6, 7, 9, 10)

# Name to model and arguments of `mini_batch`.
BATCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixed": ("wide", {"rows": 12, "seed": 2}),
    "second": ("wide", {"rows": 12, "seed": 5}),
    "warm": ("wide", {"rows": 12, "seed": 2, "temperature": 0.7}),
    "sixteen": ("wide", {"rows": 16, "seed": 3}),
    "narrow": ("narrow", {"rows": 12, "seed": 0}),
    "tied": ("tied", {"rows": 12, "seed": 2}),
    "lora": ("lora", {"rows": 12, "seed": 0}),
    "moe_fused": ("moe_fused", {"rows": 12, "seed": 2}),
    "moe_list": ("moe_list", {"rows": 12, "seed": 2}),
    "even": ("even", {"rows": 16, "seed": 3}),
    "even_tied": ("even_tied", {"rows": 16, "seed": 3}),
    "even_normed": ("even_normed", {"rows": 16, "seed": 3}),
    "even_moe": ("even_moe", {"rows": 16, "seed": 3}),
    "even_second": ("even", {"rows": 16, "seed": 5}),
}


@dataclass(frozen=True)
class Inputs:
    """What the cases are made of.

    Attributes:
        weights: model name to the policy's weights.
        batches: name to mini-batch.
        checkpoints: model name to folder.
    """

    weights: dict[str, Weights]
    batches: dict[str, list[Trajectory]]
    checkpoints: dict[str, Path]

    @classmethod
    def create(cls, folder: Path) -> "Inputs":
        """Make everything and save it for the ranks."""
        weights, batches = {}, {}
        for name, architecture in MODELS.items():
            weights[name] = random_weights(architecture, _MODEL_SEEDS[name])
            save_checkpoint(architecture, weights[name], folder / name)
        for name, (model, arguments) in BATCHES.items():
            reference = perturbed(
                weights[model], _REFERENCE_DISTANCE, seed=100 + _MODEL_SEEDS[model]
            )
            batches[name] = mini_batch(MODELS[model], weights[model], reference, **arguments)
        # Rows 4 and 5 are a whole micro-batch in every layout with two rows each.
        batches["masked"] = masked(batches["mixed"], rows=(4, 5))
        # So are rows 6 and 7, of which veRL still counts the tokens in a mean, as those of row 1.
        batches["rejected"] = rejected(batches["masked"], rows=(1, 6, 7))
        # The last row belongs to the last rank alone. Its loss is not finite: that of the
        # surrogate, and that of the KL.
        batches["poisoned"] = with_advantage(batches["mixed"], row=11, advantage=torch.nan)
        batches["infinite"] = with_advantage(batches["mixed"], row=11, advantage=torch.inf)
        batches["unknown_reference"] = with_unknown_reference(batches["mixed"], row=11)
        batches["even_poisoned"] = with_advantage(batches["even"], row=15, advantage=torch.nan)
        batches["no_advantages"] = without_advantages(batches["mixed"])
        batches["few_advantages"] = without_some_advantages(batches["mixed"], NO_ADVANTAGE)
        batches["few_poisoned"] = with_advantage(batches["no_advantages"], 11, torch.nan)
        inputs = cls(weights, batches, {name: folder / name for name in MODELS})
        torch.save(inputs, folder / "inputs.pt")
        return inputs

    @classmethod
    def load(cls, folder: Path) -> "Inputs":
        """Read what `create` saved."""
        inputs = torch.load(folder / "inputs.pt", weights_only=False)
        assert isinstance(inputs, cls)
        return inputs
