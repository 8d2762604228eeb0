"""A batch of reinforcement learning as a run has it, sampled by Hugging Face's `generate`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Qwen2Tokenizer
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from pcr_plugin.demo.reward import compute_score
from tests.support.trajectory import Trajectory


@dataclass(frozen=True)
class Batch:
    """Answers to some questions, those to one question side by side.

    Attributes:
        trajectories: N of them.
        rewards: (N,).
        answers: to every question.
    """

    trajectories: list[Trajectory]
    rewards: Tensor
    answers: int

    @property
    def tokens(self) -> Tensor:
        """(N,) tokens that the losses count, in float64."""
        return torch.tensor([t.tokens for t in self.trajectories], dtype=torch.float64)

    @property
    def without_advantage(self) -> float:
        """Share of the questions whose answers all got the same reward."""
        by_question = self.rewards.view(-1, self.answers)
        return float((by_question == by_question[:, :1]).all(dim=1).double().mean())


@torch.inference_mode()
def roll_out(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: Qwen2Tokenizer,
    questions: Sequence[dict[str, Any]],
    *,
    answers: int,
    longest: int,
) -> Batch:
    """Sample, reward and weigh answers; temperature 1, GRPO's advantages as veRL computes them.

    Args:
        policy: samples; its log-probabilities are the old ones.
        reference: of the KL loss.
        tokenizer: of both.
        questions: entries of reasoning-gym.
        answers: to each of them.
        longest: tokens of an answer.
    """
    repeated = [entry for entry in questions for _ in range(answers)]
    prompts = [_prompt(tokenizer, entry) for entry in repeated]
    responses = _sample(policy, tokenizer, prompts, longest)
    texts = [tokenizer.decode(response, skip_special_tokens=True) for response in responses]
    rewards = torch.tensor([_score(*pair) for pair in zip(repeated, texts, strict=True)])
    advantages = _advantages(rewards, responses, answers)
    old = _log_probs(policy, prompts, responses)
    known = _log_probs(reference, prompts, responses)
    trajectories = [
        Trajectory(
            prompt=prompts[row],
            response=response,
            mask=torch.ones_like(response),
            old_log_probs=old[row],
            ref_log_probs=known[row],
            advantages=advantages[row],
        )
        for row, response in enumerate(responses)
    ]
    return Batch(trajectories, rewards, answers)


def _prompt(tokenizer: Qwen2Tokenizer, entry: dict[str, Any]) -> Tensor:
    chat = [{"role": "user", "content": entry["question"]}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return torch.tensor(tokenizer(text)["input_ids"])


def _sample(
    policy: PreTrainedModel, tokenizer: Qwen2Tokenizer, prompts: list[Tensor], longest: int
) -> list[Tensor]:
    padding, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = pad_sequence(prompts, batch_first=True, padding_value=padding, padding_side="left")
    length = torch.tensor([len(prompt) for prompt in prompts])
    places = torch.arange(ids.shape[1])
    sampled = policy.generate(
        input_ids=ids,
        attention_mask=(places >= ids.shape[1] - length[:, None]).long(),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=longest,
        pad_token_id=padding,
        eos_token_id=end,
    )[:, ids.shape[1] :]
    ended = (sampled == end).long().cumsum(dim=1)
    # The end itself is a part of the answer.
    lengths = (ended == 0).sum(dim=1) + (ended > 0).any(dim=1)
    return [row[:n].clone() for row, n in zip(sampled, lengths.tolist(), strict=True)]


def _score(entry: dict[str, Any], text: str) -> float:
    source = entry["metadata"]["source_dataset"]
    return compute_score(source, text, "", {"entry": json.dumps(entry)})


def _advantages(rewards: Tensor, responses: list[Tensor], answers: int) -> list[Tensor]:
    mask = pad_sequence([torch.ones(len(r)) for r in responses], batch_first=True)
    last = mask.cumsum(dim=1).eq(mask.sum(dim=1, keepdim=True)) & mask.bool()
    advantages, _ = compute_grpo_outcome_advantage(
        token_level_rewards=rewards[:, None] * last,
        response_mask=mask,
        index=numpy.arange(len(responses)) // answers,
    )
    return [row[: len(r)].clone() for row, r in zip(advantages, responses, strict=True)]


def _log_probs(
    model: PreTrainedModel, prompts: list[Tensor], responses: list[Tensor]
) -> list[Tensor]:
    rows = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    # Padding stands on the right, where causal attention never sees it.
    ids = pad_sequence(rows, batch_first=True)
    logits = model(input_ids=ids).logits[:, :-1]
    found = logits.log_softmax(dim=-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    starts = [len(prompt) - 1 for prompt in prompts]
    return [
        row[start : start + len(response)].clone()
        for row, start, response in zip(found, starts, responses, strict=True)
    ]
