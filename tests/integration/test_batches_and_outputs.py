"""What our engine asks of veRL's batches and makes of its outputs, without an engine."""

from importlib.metadata import version
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.metric import Metric, reduce_metrics

from pcr_plugin.verl import host
from pcr_plugin.verl.outputs import as_metrics, concatenate
from pcr_plugin.verl.units import Sizes, halves, normalising_tokens, sizes

AGGREGATIONS = {
    "token-mean": 7.0,
    "token-sum": 7.0,
    "seq-mean-token-sum": 3.0,
    "seq-mean-token-mean": 3.0,
    "seq-mean-token-sum-norm": 3.0,
}
# Four answers; one is masked in part, one wholly: rollout correction has rejected it.
MASKS = [[1, 1, 1], [1, 0, 1, 1], [0, 0], [1]]
SAMPLED = [[1, 1, 1], [1, 0, 1, 1], [1, 1], [1]]


def jagged(rows: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch(rows: int, **settings: Any) -> TensorDict:
    data = TensorDict(
        {
            "row": torch.arange(rows),
            "loss_mask": jagged([torch.ones(1 + i % 3) for i in range(rows)]),
            "response_mask": jagged([torch.ones(1 + i % 3) for i in range(rows)]),
        },
        batch_size=rows,
    )
    tu.assign_non_tensor(data, **settings)
    return data


@pytest.mark.parametrize("padded", [False, True])
def test_sizes_count_what_the_loss_counts(padded: bool) -> None:
    names = {"response_mask": MASKS, "loss_mask": SAMPLED}
    masks = {name: jagged([torch.tensor(row) for row in rows]) for name, rows in names.items()}
    if padded:
        masks = {name: torch.nested.to_padded_tensor(mask, 0) for name, mask in masks.items()}
    data = TensorDict(masks, batch_size=len(MASKS))
    found = sizes(data)
    assert found == Sizes(tokens=7.0, sequences=3.0)
    assert normalising_tokens(data) == 9.0
    for aggregation, size in AGGREGATIONS.items():
        assert found.of(aggregation) == size


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.bfloat16])
def test_sizes_of_long_batches_are_exact(dtype: torch.dtype) -> None:
    """A sum in bfloat16 would stop at 256."""
    mask = torch.ones(3, 1000, dtype=dtype)
    assert sizes(TensorDict({"response_mask": mask}, batch_size=3)) == Sizes(3000.0, 3.0)


@pytest.mark.parametrize(("rows", "size"), [(8, 2), (6, 1), (6, 2), (9, 3), (4, 2)])
def test_halves_are_whole_micro_batches_that_alternate(rows: int, size: int) -> None:
    data = batch(rows, use_dynamic_bsz=False, micro_batch_size_per_gpu=size)
    first, second = (half["row"].tolist() for half in halves(data))
    assert sorted(first + second) == list(range(rows))
    assert not set(first) & set(second)
    for half in (first, second):
        assert len(half) % size == 0
        for start in range(0, len(half), size):
            assert half[start] % size == 0
            assert half[start : start + size] == list(range(half[start], half[start] + size))
    assert {row // size % 2 for row in first} == {0}
    assert {row // size % 2 for row in second} == {1}


def test_halves_of_a_dynamic_batch_alternate_by_sequence() -> None:
    first, second = halves(batch(5, use_dynamic_bsz=True))
    assert first["row"].tolist() == [0, 2, 4]
    assert second["row"].tolist() == [1, 3]


def test_halves_keep_groups_together() -> None:
    data = batch(8, use_dynamic_bsz=True, force_group_size=2)
    first, second = halves(data)
    assert first["row"].tolist() == [0, 1, 4, 5]
    assert second["row"].tolist() == [2, 3, 6, 7]


def of_prompts(prompts: list[str], **settings: Any) -> TensorDict:
    """A batch with the `uid` that veRL's trainer gives every answer."""
    data = batch(len(prompts), **settings)
    tu.assign_non_tensor_stack(data, "uid", prompts)
    return data


def test_halves_of_a_dynamic_batch_share_one_prompt_at_most() -> None:
    """Nine prompts with four answers each, in any order, as answers come in."""
    order = torch.randperm(36, generator=torch.Generator().manual_seed(0)).tolist()
    parts = halves(of_prompts([f"prompt {i % 9}" for i in order], use_dynamic_bsz=True))
    rows = [half["row"].tolist() for half in parts]
    assert sorted(rows[0] + rows[1]) == list(range(36))
    assert len(rows[0]) == len(rows[1])
    assert all(half == sorted(half) for half in rows)
    first, second = (set(half["uid"]) for half in parts)
    assert len(first & second) == 1


def test_micro_batches_of_a_fixed_size_are_not_taken_apart() -> None:
    """Losses of a whole micro-batch, as those of routers, are then those of a stock step."""
    prompts = [f"prompt {i % 4}" for i in range(8)]
    data = of_prompts(prompts, use_dynamic_bsz=False, micro_batch_size_per_gpu=2)
    first, second = halves(data)
    assert first["row"].tolist() == [0, 1, 4, 5]
    assert second["row"].tolist() == [2, 3, 6, 7]


def test_halves_of_all_ranks_cut_the_prompts_alike() -> None:
    """Ranks hold other answers to the same prompts, here two to each, in another order."""
    prompts = [f"{i}" for i in range(10)]
    of_ranks = [[*prompts, *reversed(prompts)], [*prompts[5:], *prompts, *prompts[:5]]]
    found = [halves(of_prompts(rank, use_dynamic_bsz=True)) for rank in of_ranks]
    first, second = ({uid for parts in found for uid in parts[i]["uid"]} for i in (0, 1))
    assert len(first) == len(second) == 5
    assert not first & second


def test_halves_carry_every_column_and_setting() -> None:
    data = batch(4, use_dynamic_bsz=False, micro_batch_size_per_gpu=1, temperature=0.7)
    for half in halves(data):
        assert set(half.keys()) == set(data.keys())
        assert half["temperature"] == 0.7
        lengths = half["loss_mask"].offsets().diff().tolist()
        assert lengths == [1 + row % 3 for row in half["row"].tolist()]


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (4, 4), (2, 2)])
def test_a_single_micro_batch_has_no_halves(rows: int, size: int) -> None:
    data = batch(rows, use_dynamic_bsz=False, micro_batch_size_per_gpu=size)
    with pytest.raises(ValueError, match="split_half") as caught:
        halves(data)
    assert f"{rows} sequences in micro-batches of {size}" in str(caught.value)


def test_our_numbers_are_averaged_over_steps_whatever_their_name() -> None:
    """A plain list under a name with "min" or "max" would be reduced by min or max."""
    steps = [as_metrics({"pcr/dominance": float(i), "pcr/cos": -float(i)}) for i in range(4)]
    joined = steps[0]
    for later in steps[1:]:
        for name, value in later.items():
            joined[name].extend(value)
    assert reduce_metrics(joined) == {"pcr/dominance": 1.5, "pcr/cos": -1.5}


def test_numbers_that_are_equal_on_all_ranks_stay_so() -> None:
    (metric,) = as_metrics({"pcr/alpha": 0.25}).values()
    assert Metric.aggregate_dp([metric, metric, metric]) == 0.25


def test_outputs_of_two_halves_are_those_of_one_pass() -> None:
    halves_of = [
        {"model_output": {}, "loss": [1.0, 2.0], "metrics": {"a": [1.0, 2.0]}},
        {"model_output": {}, "loss": [3.0], "metrics": {"a": [3.0]}},
    ]
    joined = concatenate(halves_of)
    assert joined == {
        "model_output": {},
        "loss": [1.0, 2.0, 3.0],
        "metrics": {"a": [1.0, 2.0, 3.0]},
    }


def test_metrics_of_two_halves_keep_their_aggregation() -> None:
    parts = [
        {
            "model_output": {},
            "loss": [x],
            "metrics": {"actor/pg_loss": Metric(aggregation="sum", value=x)},
        }
        for x in (1.0, 2.5)
    ]
    assert concatenate(parts)["metrics"]["actor/pg_loss"].aggregate() == 3.5


def test_every_name_of_the_host_is_there() -> None:
    host.check_all()
    assert host.verl_version() == version("verl")


def test_a_name_that_the_host_lacks_stops_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(host._NEEDED, "verl.workers.utils.losses", ("ppo_loss", "moved_away"))
    with pytest.raises(ImportError) as caught:
        host.check_all()
    message = str(caught.value)
    for words in ("verl.workers.utils.losses.moved_away", version("verl"), "pip install", "doctor"):
        assert words in message
