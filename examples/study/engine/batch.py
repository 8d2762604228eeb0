"""Answers as the columns that veRL's trainer hands to its workers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import torch
from tensordict import TensorDict
from torch import Tensor
from verl import DataProto
from verl.trainer.ppo.core_algos import agg_loss, compute_grpo_outcome_advantage
from verl.trainer.ppo.metric_utils import compute_data_metrics
from verl.utils import tensordict_utils
from verl.workers.utils.padding import response_from_nested, response_to_nested

from examples.study.engine.sampling import Answer


def columns(answers: Sequence[Answer]) -> TensorDict:
    """Questions, answers, rewards, and GRPO's advantages as veRL computes them.

    Args:
        answers: those to one question are told by the question's row.
    """
    mask = _jagged(torch.ones_like(each.response) for each in answers)
    rewards = _jagged(
        torch.cat([torch.zeros(len(each.response) - 1), torch.tensor([each.score])])
        for each in answers
    )
    groups = [each.row["extra_info"]["index"] for each in answers]
    advantages, _ = compute_grpo_outcome_advantage(
        token_level_rewards=rewards.to_padded_tensor(0.0),
        response_mask=mask.to_padded_tensor(0),
        index=numpy.array(groups),
    )
    tokens = [torch.cat([each.prompt, each.response]) for each in answers]
    found = {
        "input_ids": _jagged(tokens),
        "position_ids": _jagged(torch.arange(len(each)) for each in tokens),
        "prompts": _jagged(each.prompt for each in answers),
        "responses": _jagged(each.response for each in answers),
        "response_mask": mask,
        "loss_mask": mask,
        "rm_scores": rewards,
        "advantages": response_to_nested(advantages, mask),
    }
    return tensordict_utils.get_tensordict(found, {})


def with_log_probs(
    data: TensorDict, actor: Any, reference: Any, temperature: float
) -> dict[str, float]:
    """Add the log-probabilities of both policies, as veRL's trainer does.

    Args:
        data: see `columns`; gets two of them.
        actor: veRL's worker.
        reference: veRL's worker.
        temperature: of the sampling.

    Returns:
        `actor/entropy`, the mean over tokens.
    """
    mask = data["response_mask"]
    settings = {"temperature": temperature, "compute_loss": False}
    asked = data.copy()  # shallow; the workers add settings of their own
    tensordict_utils.assign_non_tensor(asked, **settings, calculate_entropy=True)
    ours = actor.compute_log_prob(asked)
    asked = data.copy()
    tensordict_utils.assign_non_tensor(asked, **settings, calculate_entropy=False)
    theirs = reference.compute_ref_log_prob(asked)
    data["old_log_probs"] = response_from_nested(ours["log_probs"], mask)
    data["ref_log_prob"] = response_from_nested(theirs["log_probs"], mask)
    entropy = agg_loss(
        loss_mat=response_from_nested(ours["entropy"], mask).to_padded_tensor(0.0),
        loss_mask=mask.to_padded_tensor(0),
        loss_agg_mode="token-mean",
    )
    return {"actor/entropy": float(entropy)}


def metrics_of(data: TensorDict) -> dict[str, float]:
    """veRL's metrics of a batch: rewards, advantages, lengths.

    Args:
        data: see `columns`.
    """
    padded = data.select("prompts", "responses", "response_mask", "rm_scores", "advantages")
    padded = padded.to_padded_tensor()
    padded["token_level_scores"] = padded["token_level_rewards"] = padded["rm_scores"]
    padded["returns"] = padded["advantages"]
    padded["prompt_length"] = data["prompts"].offsets().diff().float()
    padded["response_length"] = data["responses"].offsets().diff().float()
    found = compute_data_metrics(DataProto(batch=padded), use_critic=False)
    return {key: float(value) for key, value in found.items()}


def _jagged(rows: Iterable[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)
