"""A loss that is nothing but the KL term, made of veRL's estimators and aggregation alone.

What the stability gradient has to be the gradient of, by another road: neither `ppo_loss` nor our
way of taking it apart is in it.
"""

from typing import Any

from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, kl_penalty
from verl.workers.utils.padding import no_padding_2_padding


def kl_alone(
    *,
    kind: str,
    aggregation: str,
    horizon: int | None,
    model_output: Any,
    data: Any,
    dp_group: Any = None,
) -> tuple[Tensor, dict[str, Any]]:
    """The mean KL over the global mini-batch, without a coefficient.

    Args:
        kind: `kl_loss_type`.
        aggregation: `loss_agg_mode`.
        horizon: `loss_scale_factor`.
        model_output: the engine's, with `log_probs`.
        data: a micro-batch.
        dp_group: not used.
    """
    padded = data.select("response_mask", "ref_log_prob").to_padded_tensor()
    divergence = kl_penalty(
        logprob=no_padding_2_padding(model_output["log_probs"], data),
        ref_logprob=padded["ref_log_prob"],
        kl_penalty=kind,
    )
    loss = agg_loss(
        loss_mat=divergence,
        loss_mask=padded["response_mask"].to(bool),
        loss_agg_mode=aggregation,
        loss_scale_factor=horizon,
        dp_size=data["dp_size"],
        batch_num_tokens=data["batch_num_tokens"],
        global_batch_size=data["global_batch_size"],
    )
    return loss, {}
