"""Answers of the policy, sampled by Hugging Face's `generate` from a copy of its weights."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Qwen2Tokenizer

from examples.study.reward import compute_score


@dataclass(frozen=True)
class Answer:
    """One of them.

    Attributes:
        row: of the questions' file.
        prompt: `[P]` token ids.
        response: `[T]` token ids; ends with the end of the turn unless it was cut off.
        score: the reward.
        right: 1 for full marks, else 0.
    """

    row: dict[str, Any]
    prompt: Tensor
    response: Tensor
    score: float
    right: float


class Sampler:
    """Asks a model, temperature 1.

    Args:
        model: that answers.
        tokenizer: its own.
        longest: tokens of an answer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Qwen2Tokenizer, longest: int) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._longest = longest

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take over the actor's weights, as the rollout does after every step.

        Args:
            weights: names and whole tensors.
        """
        found = dict(weights)
        missing, unexpected = self.model.load_state_dict(found, strict=False)
        # Tied to the embedding.
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)

    @torch.no_grad()
    def ask(self, rows: Sequence[dict[str, Any]], seed: int) -> list[Answer]:
        """One answer to each question.

        Args:
            rows: of the questions' file.
            seed: of the sampling; the process's random numbers are left as they were.
        """
        prompts = [self._prompt(row) for row in rows]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            responses = self._sample(prompts)
        texts = [self._tokenizer.decode(each, skip_special_tokens=True) for each in responses]
        answers = []
        for row, prompt, response, text in zip(rows, prompts, responses, texts, strict=True):
            truth = row["reward_model"]["ground_truth"]
            marks = compute_score(row["data_source"], text, truth, row["extra_info"])
            answers.append(Answer(row, prompt, response, marks["score"], marks["acc"]))
        return answers

    def _prompt(self, row: dict[str, Any]) -> Tensor:
        text = self._tokenizer.apply_chat_template(
            list(row["prompt"]), add_generation_prompt=True, tokenize=False
        )
        return torch.tensor(self._tokenizer(text)["input_ids"])

    def _sample(self, prompts: list[Tensor]) -> list[Tensor]:
        padding, end = self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        ids = pad_sequence(prompts, batch_first=True, padding_value=padding, padding_side="left")
        mask = pad_sequence([torch.ones_like(p) for p in prompts], True, 0, "left")
        sampled = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self._longest,
            pad_token_id=padding,
            eos_token_id=end,
        )[:, ids.shape[1] :]
        ended = (sampled == end).long().cumsum(dim=1)
        # The end itself is a part of the answer.
        lengths = (ended == 0).sum(dim=1) + (ended > 0).any(dim=1)
        return [row[:n].clone() for row, n in zip(sampled, lengths.tolist(), strict=True)]


def read_questions(path: Any) -> list[dict[str, Any]]:
    """The rows of a questions' file.

    Args:
        path: of the parquet file.
    """
    import pandas

    rows: list[dict[str, Any]] = pandas.read_parquet(path).to_dict("records")
    assert all(json.loads(row["extra_info"]["entry"]) for row in rows[:1])
    return rows
