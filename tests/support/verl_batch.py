"""Trajectories as the TensorDict that veRL's trainer hands to an engine."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from verl.utils import tensordict_utils

from tests.support.trajectory import Trajectory

# A column of our own that travels with the rows, to see into which micro-batch each one went.
ROW = "row"


def verl_batch(trajectories: Sequence[Trajectory], rows: Sequence[int], **settings: Any) -> Any:
    """Jagged columns as veRL's v1 trainer writes them, without any padding.

    Args:
        trajectories: the global mini-batch.
        rows: those of this rank.
        **settings: non-tensor entries: `micro_batch_size_per_gpu`, `temperature` and so on.

    Returns:
        A TensorDict of `len(rows)`.
    """
    mine = [trajectories[row] for row in rows]
    tokens = [torch.cat([t.prompt, t.response]) for t in mine]
    columns = {
        "input_ids": _jagged(tokens),
        "position_ids": _jagged(torch.arange(len(sequence)) for sequence in tokens),
        "prompts": _jagged(t.prompt for t in mine),
        "responses": _jagged(t.response for t in mine),
        "response_mask": _jagged(t.mask for t in mine),
        "loss_mask": _jagged(t.normalising for t in mine),
        "old_log_probs": _jagged(t.old_log_probs for t in mine),
        "ref_log_prob": _jagged(t.ref_log_probs for t in mine),
        "advantages": _jagged(t.advantages for t in mine),
        ROW: torch.tensor(list(rows)),
    }
    return tensordict_utils.get_tensordict(columns, settings)


def _jagged(rows: Iterable[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)
