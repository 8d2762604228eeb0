"""The cases contain what they are meant to contain; otherwise the other tests prove little."""

import math

import pytest
import torch

from tests.distributed.cases import CASES, case
from tests.distributed.conftest import Runs
from tests.distributed.expected import Oracle, micro_batches, one_pass, two_halves
from tests.distributed.inputs import NO_ADVANTAGE, Inputs
from tests.distributed.recipe import rows_of
from tests.distributed.variants import VARIANTS
from tests.oracle.model import next_token_log_probs
from tests.support.routing import closest_call, tokens_per_expert
from tests.support.tiny_model import MODELS


@pytest.mark.parametrize("name", ["plain-robust", "plain-robust_beta", "sequence-robust_beta"])
def test_blocks_are_in_all_three_situations(name: str, runs: Runs, oracle: Oracle) -> None:
    chosen = case(name)
    blocks = oracle.steps(chosen, runs.of(name))[0].blocks.values()
    beta = chosen.recipe.beta
    assert any(not block.conflict for block in blocks)
    assert any(block.conflict and block.beta_effective == beta for block in blocks)
    assert any(block.conflict and block.beta_effective > beta for block in blocks)
    # Far enough from orthogonal for float32 to tell the sign.
    assert min(abs(block.cosine) for block in blocks) > 0.01


def test_alphas_are_neither_zero_nor_one_nor_equal(runs: Runs, oracle: Oracle) -> None:
    blocks = oracle.steps(case("plain-paper"), runs.of("plain-paper"))[0].blocks.values()
    alphas = [block.alpha for block in blocks]
    assert 0.1 < min(alphas) < max(alphas) < 0.9
    assert max(alphas) - min(alphas) > 0.05


def test_third_rank_holds_nothing_of_a_narrow_mlp(runs: Runs) -> None:
    records = runs.of("narrow-paper", 3)
    mlp = [name for name in records[0].shards if ".mlp." in name]
    assert len(mlp) == 3 * MODELS["narrow"].layers
    assert all(records[2].shards[name] == 0 for name in mlp)
    assert all(records[0].shards[name] > 0 for name in mlp)
    assert any(records[2].shards[name] > 0 for name in records[2].shards)  # the embedding


def test_flat_shards_cut_through_mlps_and_one_holds_none(runs: Runs) -> None:
    """A layer's flat parameter is attention, MLP, norms; a third of it ends inside attention."""
    a = MODELS["wide"]
    heads = (a.heads + 2 * a.key_heads) * a.head_width
    attention = heads * (a.hidden + 1) + a.hidden**2
    mlp = 3 * a.hidden * a.intermediate
    layer = attention + mlp + 2 * a.hidden
    for record in runs.of("flat-paper", 3):
        shards = [size for name, size in record.shards.items() if "layers" in name]
        assert shards == [-(-layer // 3)] * a.layers
        assert shards[0] < attention  # the first rank holds nothing of any MLP
        assert 2 * shards[0] < attention + mlp  # the second's ends inside one


@pytest.mark.parametrize("model", ["moe_fused", "moe_list"])
def test_experts_are_chosen_clearly_and_one_is_idle(model: str, inputs: Inputs) -> None:
    """float32 and float64 choose the same; some micro-batch leaves an expert without a token."""
    weights, architecture, rows = inputs.weights[model], MODELS[model], inputs.batches[model]
    assert closest_call(weights, architecture, rows) > 1e-4
    least = [
        int(tokens_per_expert(weights, architecture, rows[start : start + 2]).min())
        for start in range(0, len(rows), 2)
    ]
    assert min(least) == 0
    assert max(least) > 0


@pytest.mark.parametrize("ranks", [2, 3])
def test_wide_shards_are_uneven(ranks: int, runs: Runs) -> None:
    records = runs.of("plain-paper", ranks)
    gate = "model.layers.0.mlp.gate_proj.weight"
    assert len({record.shards[gate] for record in records}) > 1
    assert all(record.shards[gate] > 0 for record in records)


def test_micro_batches_and_ranks_differ_in_size(inputs: Inputs) -> None:
    batch = inputs.batches["mixed"]
    tokens = [batch[row].tokens + batch[row + 1].tokens for row in range(0, 12, 2)]
    assert len(set(tokens)) == len(tokens)
    per_rank = [sum(batch[row].tokens for row in rows_of(rank, 3, 12)) for rank in range(3)]
    assert len(set(per_rank)) == 3


def test_a_fully_masked_micro_batch_and_a_gap(inputs: Inputs) -> None:
    tokens = [row.tokens for row in inputs.batches["masked"]]
    assert tokens[4] == tokens[5] == 0
    assert any(0 < row.tokens < len(row.response) for row in inputs.batches["masked"])


def test_rejected_rows_are_out_of_the_losses_and_in_their_mean(inputs: Inputs) -> None:
    """A whole micro-batch of them, and one in a micro-batch with another row."""
    batch = inputs.batches["rejected"]
    rejected = [i for i, row in enumerate(batch) if row.tokens < row.normalising.sum()]
    assert rejected == [1, 6, 7]
    assert [i for i, row in enumerate(batch) if not row.tokens] == [1, 4, 5, 6, 7]


def test_tokens_on_both_sides_of_every_clip_and_none_at_a_kink(inputs: Inputs) -> None:
    """The surrogate's gradient jumps at the clip; there float32 and float64 could disagree."""
    exact = {name: w.double() for name, w in inputs.weights["wide"].items()}
    ratios, signs = [], []
    for row in inputs.batches["mixed"]:
        tokens = torch.cat([row.prompt, row.response])
        table = next_token_log_probs(exact, tokens, MODELS["wide"])[len(row.prompt) - 1 : -1]
        chosen = table.gather(1, row.response[:, None]).squeeze(1)
        ratios += (chosen - row.old_log_probs.double()).exp().tolist()
        signs += row.advantages.sign().tolist()
    positive = [r for r, sign in zip(ratios, signs, strict=True) if sign > 0]
    negative = [r for r, sign in zip(ratios, signs, strict=True) if sign < 0]
    assert any(r > 1.2 for r in positive) and any(r < 0.8 for r in positive)
    assert any(r > 3.0 for r in negative) and any(r < 0.8 for r in negative)
    assert min(abs(r - kink) for r in ratios for kink in (0.8, 1.2, 3.0)) > 1e-4


@pytest.mark.parametrize("ranks", [2, 3])
def test_dynamic_micro_batches_have_different_numbers_of_rows(ranks: int, runs: Runs) -> None:
    recipe = case("dynamic-paper").recipe
    units = micro_batches(recipe, runs.of("dynamic-paper", ranks), 0)
    assert len({len(unit) for unit in units}) > 1
    assert len(units) > ranks


def test_ranks_that_need_different_numbers_of_micro_batches_have_as_many(
    runs: Runs, inputs: Inputs
) -> None:
    """One with fewer would leave the others in the collectives of a backward pass."""
    recipe, ranks = case("dynamic-paper").recipe, 3
    assert recipe.token_budget is not None
    rows = inputs.batches[recipe.batches[0]]
    tokens = [len(row.prompt) + len(row.response) for row in rows]
    of_ranks = [sum(tokens[i] for i in rows_of(rank, ranks, len(rows))) for rank in range(ranks)]
    alone = [math.ceil(each / recipe.token_budget) for each in of_ranks]
    assert min(alone) < max(alone), "otherwise this proves nothing"
    seen = [one_pass(record.steps[0].micro_batches) for record in runs.of("dynamic-paper", ranks)]
    [count] = {len(units) for units in seen}
    assert count >= max(alone)


FIXED = [
    pytest.param(c.name, ranks, id=f"{c.name}-{ranks}")
    for c in CASES
    for ranks in c.ranks
    if c.recipe.micro_batches and VARIANTS[c.variant].oracle and not c.fails
]


@pytest.mark.parametrize(("name", "ranks"), FIXED)
def test_recorded_micro_batches(name: str, ranks: int, runs: Runs) -> None:
    """All passes see every row once, in consecutive micro-batches, the halves one by one; grouped,
    rows without advantage come last.
    """
    chosen, records = case(name), runs.of(name, ranks)
    shared = chosen.recipe.sequence_ranks
    for step in range(len(chosen.recipe.batches)):
        seen = [tuple(record.steps[step].micro_batches) for record in records]
        rows = sum(len(unit) for unit in micro_batches(chosen.recipe, records, step))
        for rank, units in enumerate(seen):
            own = rows_of(rank // shared, ranks // shared, rows)
            parts = [own]
            if VARIANTS[chosen.variant].halves:
                halves = two_halves(chosen.recipe, ranks // shared, rows, step)
                parts = [[row for row in half if row in own] for half in halves]
            if chosen.settings.get("zero_advantage") == "group":
                parts = [sorted(part, key=NO_ADVANTAGE.__contains__) for part in parts]
            order = [row for part in parts for row in part]
            size = chosen.recipe.micro_batch(step) or 1
            once = [order[start : start + size] for start in range(0, len(order), size)]
            assert list(units) == once * chosen.forward_passes
