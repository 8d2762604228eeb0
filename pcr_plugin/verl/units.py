"""Independent units in veRL's batches: their sizes, and the two halves of a mini-batch."""

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
        return self.tokens if loss_agg_mode.startswith("token") else self.sequences


def sizes(data: Any) -> Sizes:
    """Count a batch.

    Args:
        data: TensorDict with `loss_mask`, padded or jagged, (sequences, tokens).

    Returns:
        This rank's counts.
    """
    mask: Tensor = data["loss_mask"]
    if mask.is_nested:
        mask = torch.nested.to_padded_tensor(mask, 0)
    per_sequence = mask.sum(dim=-1, dtype=torch.float64)
    return Sizes(float(per_sequence.sum()), float((per_sequence > 0).sum()))


def halves(data: Any) -> tuple[Any, Any]:
    """Two halves of this rank's mini-batch.

    Whole micro-batches alternate between the halves, so that a trend in the order of the
    sequences (veRL sorts by length) does not look like noise.

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
    return select(data, rows[first]), select(data, rows[~first])
