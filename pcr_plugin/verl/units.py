"""Independent units in veRL's batches: their sizes, and the two halves of a mini-batch."""

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcr_plugin.verl import host

_TENSORDICT = "verl.utils.tensordict_utils"


class Sizes(NamedTuple):
    """What a set of sequences weighs.

    Attributes:
        tokens: tokens that the loss counts.
        sequences: sequences with at least one such token.
    """

    tokens: float
    sequences: float

    def of(self, loss_agg_mode: str) -> float:
        """The number that the aggregation divides by: tokens or sequences.

        Args:
            loss_agg_mode: veRL's `loss_agg_mode`.
        """
        return self.tokens if counts_tokens(loss_agg_mode) else self.sequences


def sizes(data: Any) -> Sizes:
    """Count a batch.

    Args:
        data: TensorDict with `response_mask`, padded or jagged, (sequences, tokens).

    Returns:
        This rank's counts.
    """
    per_sequence = tokens_of_rows(data)
    return Sizes(float(per_sequence.sum()), float((per_sequence > 0).sum()))


def tokens_of_rows(data: Any) -> Tensor:
    """Tokens that the loss counts in every row.

    What rollout correction rejects it takes out of `response_mask` alone, which both losses are
    computed with; veRL's `loss_mask` keeps it.

    Args:
        data: TensorDict with `response_mask`, padded or jagged, (rows, tokens).

    Returns:
        (rows,) in float64.
    """
    return _sums(data["response_mask"])


def normalising_tokens(data: Any) -> float:
    """Tokens by which veRL divides in token-mean: also those that no loss counts any more.

    Args:
        data: TensorDict with `loss_mask`, padded or jagged, (rows, tokens).

    Returns:
        This rank's part of `batch_num_tokens`.
    """
    return float(_sums(data["loss_mask"]).sum())


def _sums(mask: Tensor) -> Tensor:
    if mask.is_nested:
        mask = torch.nested.to_padded_tensor(mask, 0)
    return mask.sum(dim=-1, dtype=torch.float64)


def sizes_of_rows(data: Any, loss_agg_mode: str) -> Tensor:
    """What every row weighs in the aggregation: its tokens, or 1 if it has any.

    Args:
        data: TensorDict with `response_mask`.
        loss_agg_mode: veRL's `loss_agg_mode`.

    Returns:
        (rows,) in float64.
    """
    tokens = tokens_of_rows(data)
    return tokens if counts_tokens(loss_agg_mode) else (tokens > 0).to(tokens.dtype)


def counts_tokens(loss_agg_mode: str) -> bool:
    """Whether the aggregation weighs tokens, and not sequences."""
    return loss_agg_mode.startswith("token")


def labels_of_tokens(data: Any) -> Tensor:
    """A stand-in for a batch's token ids that says which row a token is of.

    Laid out as the ids are, with whatever padding, it gives the row of every token of a layer's
    input; padding comes out negative, because veRL pads with ids of at least 0.

    Args:
        data: TensorDict with jagged `input_ids`, (rows, tokens).

    Returns:
        Jagged as `input_ids`: -1 - row. The same formula takes a label back to its row.
    """
    offsets = data["input_ids"].offsets()
    rows = torch.arange(len(offsets) - 1, device=offsets.device)
    return torch.nested.nested_tensor_from_jagged(
        -1 - rows.repeat_interleave(offsets.diff()), offsets
    )


def halves(data: Any) -> tuple[Any, Any]:
    """Two halves of this rank's mini-batch.

    Whole micro-batches alternate between the halves, so that a trend in the order of the
    sequences (veRL sorts by length) does not look like noise. Where veRL makes the micro-batches
    of sequences as they fit, the halves are free to keep prompts whole, whose answers are not
    independent: sequences go to the halves by their prompt's `uid`, in an order that is the same
    on all ranks and has nothing to do with lengths; only prompts about its middle are in both.

    Args:
        data: TensorDict as `forward_backward_batch` gets it.

    Returns:
        Two TensorDicts that together hold every sequence once.

    Raises:
        ValueError: there are not two micro-batches to take apart.
    """
    get = host.name(_TENSORDICT, "get_non_tensor_data")
    select = host.name(_TENSORDICT, "index_select_tensor_dict")
    group = get(data=data, key="force_group_size", default=1)
    dynamic = get(data=data, key="use_dynamic_bsz", default=True)
    chunk = group if dynamic else group * data["micro_batch_size_per_gpu"]
    rows = torch.arange(len(data))
    first = (rows // chunk) % 2 == 0
    if first.all():
        raise ValueError(
            f"pcr.variance.estimator='split_half' needs two micro-batches per rank, but the "
            f"mini-batch has {len(data)} sequences in micro-batches of {chunk}; use smaller ones."
        )
    prompts = data.get("uid", None)
    if prompts is not None and chunk == 1 and dynamic:
        first = _first_by_prompt(list(map(str, prompts.tolist())), int(first.sum()))
    return select(data, rows[first]), select(data, rows[~first])


def _first_by_prompt(prompts: list[str], count: int) -> Tensor:
    """Which `count` rows are in the first half; rows of one prompt stand together."""
    digests = [hashlib.sha256(prompt.encode()).digest() for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda row: (digests[row], row))
    first = torch.zeros(len(prompts), dtype=torch.bool)
    first[order[:count]] = True
    return first
