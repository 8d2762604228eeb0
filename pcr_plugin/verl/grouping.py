"""Rows without advantage put together, so that whole micro-batches have none."""

from typing import Any

import torch
from torch import Tensor

from pcr_plugin.verl import host

_TENSORDICT = "verl.utils.tensordict_utils"


def advantage_first(data: Any) -> Any:
    """The same rows of a rank's mini-batch, those with an advantage first.

    veRL cuts micro-batches of a fixed number of rows in the order of the rows. Losses are
    normalised by the whole mini-batch, so their sum does not depend on the cut, unless the policy
    loss itself looks at a micro-batch as a whole (`clip_cov`, `kl_cov`, and `bypass_mode` where it
    normalises its weights). An aggregation that does is refused (`refusals_losses`).

    Args:
        data: TensorDict as `forward_backward_batch` gets it, with jagged or padded `advantages`
            and `response_mask`, (rows, tokens).

    Returns:
        Another TensorDict, or `data` where the caller wants outputs in the order of the rows.
    """
    get = host.name(_TENSORDICT, "get_non_tensor_data")
    if get(data=data, key="return_model_output", default=False):
        return data
    if get(data=data, key="force_group_size", default=1) > 1:
        return data
    counted = _padded(data["response_mask"]) != 0
    # A NaN is an advantage.
    has = ((_padded(data["advantages"]) != 0) & counted).any(dim=-1)
    order = torch.argsort(~has, stable=True)
    return host.name(_TENSORDICT, "index_select_tensor_dict")(data, order)


def _padded(rows: Tensor) -> Tensor:
    return torch.nested.to_padded_tensor(rows, 0) if rows.is_nested else rows
