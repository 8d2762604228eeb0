"""The mixture of experts in limit cases, and what the tiny models' data has to contain."""

from dataclasses import replace

import pytest
import torch

from tests.oracle.architecture import mlp_members
from tests.oracle.gradients import unit_gradients
from tests.oracle.model import Weights, next_token_log_probs
from tests.oracle.objective import Objective
from tests.support.mini_batches import mini_batch
from tests.support.routing import closest_call, tokens_per_expert
from tests.support.tiny_model import MODELS, perturbed, random_weights
from tests.support.trajectory import Trajectory

FUSED, LISTED = MODELS["moe_fused"], MODELS["moe_list"]
TOKENS = torch.arange(2, 18)
ROWS = 12


def _exact(seed: int = 3) -> Weights:
    return {name: w.double() for name, w in random_weights(LISTED, seed).items()}


@pytest.fixture(scope="module")
def batch() -> list[Trajectory]:
    """A mini-batch; two rows each are a micro-batch."""
    weights = random_weights(LISTED, seed=3)
    return mini_batch(LISTED, weights, perturbed(weights, 0.15, seed=103), rows=ROWS, seed=2)


def test_layouts_are_the_same_function() -> None:
    fused = {name: w.double() for name, w in random_weights(FUSED, seed=3).items()}
    torch.testing.assert_close(
        next_token_log_probs(fused, TOKENS, FUSED), next_token_log_probs(_exact(), TOKENS, LISTED)
    )


def test_gradients_of_the_layouts_have_the_same_norms(batch: list[Trajectory]) -> None:
    """Of every layer's block, for both losses."""
    norms = []
    for architecture in (FUSED, LISTED):
        weights = random_weights(architecture, seed=3)
        (unit,) = unit_gradients(weights, architecture, batch, [range(ROWS)], Objective())
        for gradient in (unit.plasticity, unit.stability):
            for layer in range(architecture.layers):
                members = mlp_members(architecture, layer)
                norms.append(torch.cat([gradient[name].flatten() for name in members]).norm())
    half = len(norms) // 2
    torch.testing.assert_close(torch.stack(norms[:half]), torch.stack(norms[half:]))


def test_experts_that_agree_are_one_mlp() -> None:
    """Where every expert is chosen, the probabilities add up to 1."""
    weights = _exact()
    for layer in range(LISTED.layers):
        mlp = f"model.layers.{layer}.mlp."
        for kind in ("gate", "up", "down"):
            matrix = weights[f"{mlp}experts.0.{kind}_proj.weight"]
            for number in range(LISTED.experts):
                weights[f"{mlp}experts.{number}.{kind}_proj.weight"] = matrix
            weights[f"{mlp}{kind}_proj.weight"] = matrix
        weights[f"{mlp}shared_expert.down_proj.weight"] = torch.zeros(
            LISTED.hidden, LISTED.shared_intermediate, dtype=torch.float64
        )
    everywhere = replace(LISTED, experts_per_token=LISTED.experts)
    torch.testing.assert_close(
        next_token_log_probs(weights, TOKENS, everywhere),
        next_token_log_probs(weights, TOKENS, replace(LISTED, experts=0)),
    )


def test_an_expert_without_tokens_has_no_gradient(batch: list[Trajectory]) -> None:
    """Nor may one whose only token is a sequence's last; over the mini-batch all have one."""
    weights = random_weights(LISTED, seed=3)
    pairs = [range(row, row + 2) for row in range(0, ROWS, 2)]
    units = unit_gradients(weights, LISTED, batch, pairs, Objective())
    tokens = [tokens_per_expert(weights, LISTED, [batch[row] for row in pair]) for pair in pairs]
    for layer in range(LISTED.layers):
        for number in range(LISTED.experts):
            name = f"model.layers.{layer}.mlp.experts.{number}.down_proj.weight"
            moved = [bool(unit.stability[name].any()) for unit in units]
            hit = [bool(count[layer, number]) for count in tokens]
            assert any(moved)
            assert all(there or not here for here, there in zip(moved, hit, strict=True))


def test_some_micro_batch_leaves_an_expert_out_and_no_rank_does(batch: list[Trajectory]) -> None:
    weights = random_weights(LISTED, seed=3)

    def idle(rows: int) -> list[bool]:
        parts = [batch[start : start + rows] for start in range(0, ROWS, rows)]
        return [bool((tokens_per_expert(weights, LISTED, p) == 0).any()) for p in parts]

    assert any(idle(2))
    assert not any(idle(ROWS // 3)) and not any(idle(ROWS // 2))


def test_rounding_does_not_decide_where_a_token_goes(batch: list[Trajectory]) -> None:
    """Probabilities in float32 are off by about 1e-7."""
    assert closest_call(random_weights(LISTED, seed=3), LISTED, batch) > 1e-5


def test_every_token_goes_to_as_many_experts_as_it_should(batch: list[Trajectory]) -> None:
    tokens = tokens_per_expert(random_weights(LISTED, seed=3), LISTED, batch)
    length = sum(len(row.prompt) + len(row.response) for row in batch)
    assert tokens.sum(dim=1).tolist() == [2 * length] * LISTED.layers
