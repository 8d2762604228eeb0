"""Which row of a batch every token is of, where Megatron-core's layers get it."""

from typing import Any

from torch import Tensor

from pcr_plugin.verl.units import labels_of_tokens

# As in veRL's forward functions.
_PADDED = ("e4m3", "hybrid")


def rows_of_tokens(data: Any, engine_config: Any, config: Any, layout: str) -> Tensor:
    """Let veRL lay out labels as it lays out token ids.

    Args:
        data: TensorDict of a micro-batch.
        engine_config: veRL's McoreEngineConfig.
        config: Megatron-core's TransformerConfig.
        layout: veRL's, of the tokens over context-parallel ranks.

    Returns:
        (tokens,) row, negative for padding, in the order of the flattened (sequence, batch) of a
        layer's input, all tokens of a tensor-parallel group.
    """
    from verl.models.mcore.util import preprocess_bshd_engine, preprocess_thd_engine
    from verl.utils.tensordict_utils import get_non_tensor_data

    labels = labels_of_tokens(data)
    if engine_config.use_remove_padding:
        bucket = engine_config.pad_to_length_bucket if engine_config.pad_to_length else None
        laid_out: Tensor = preprocess_thd_engine(
            labels,
            use_fp8_padding=config.fp8 in _PADDED,
            pad_to_length_bucket=bucket,
            cp_layout=layout,
        )[0]
    else:
        longest = get_non_tensor_data(data=data, key="forced_max_seqlen", default=None)
        laid_out = preprocess_bshd_engine(labels, forced_max_seqlen=longest)[0]
    return -1 - laid_out.transpose(0, 1).flatten()
