"""Supervised learning before reinforcement: a text, and worked examples."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Qwen2Tokenizer

from pcr_plugin.demo.tasks import worked_example

IGNORED = -100  # the label that Hugging Face's loss leaves out


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimizer steps.
        text_rows: windows of text in a batch.
        examples: worked examples in a batch.
        learning_rate: peak; linear warm-up over a tenth, then a cosine to a tenth of it.
    """

    steps: int = 900
    text_rows: int = 4
    examples: int = 24
    learning_rate: float = 2e-3


def encode_example(
    entry: dict[str, Any], tokenizer: Qwen2Tokenizer, generator: random.Random
) -> tuple[Tensor, Tensor]:
    """A question and its worked answer; see `encode`."""
    return encode(entry["question"], worked_example(entry, generator), tokenizer)


def encode(question: str, answer: str, tokenizer: Qwen2Tokenizer) -> tuple[Tensor, Tensor]:
    """A chat as token ids and labels, the question unlabelled; both `[length]`."""
    turns = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    prompt_ids = tokenizer(prompt)["input_ids"]
    answer_ids = tokenizer(answer)["input_ids"]
    answer_ids.append(tokenizer.eos_token_id)
    labels = [IGNORED] * len(prompt_ids) + answer_ids
    return torch.tensor(prompt_ids + answer_ids), torch.tensor(labels)


def learn(
    model: PreTrainedModel,
    text: Tensor,
    examples: list[tuple[Tensor, Tensor]],
    schedule: Schedule,
    report: Callable[[int, float, float], None],
    seed: int = 0,
) -> None:
    """Train in place on both at once.

    Args:
        model: with parameters in float32.
        text: `[rows, length]` token ids.
        examples: from `encode_example`.
        schedule: see there.
        report: called after each step with its number and the two losses.
        seed: of the order of the data.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        schedule.learning_rate,
        total_steps=schedule.steps,
        pct_start=0.1,
        final_div_factor=10 / 25,
    )
    generator = random.Random(seed)
    padding = model.config.pad_token_id
    model.train()
    for step in range(1, schedule.steps + 1):
        rows = text[generator.choices(range(len(text)), k=schedule.text_rows)]
        chosen = generator.choices(examples, k=schedule.examples)
        ids = pad_sequence([ids for ids, _ in chosen], batch_first=True, padding_value=padding)
        labels = pad_sequence([tags for _, tags in chosen], batch_first=True, padding_value=IGNORED)
        reading = model(input_ids=rows, labels=rows).loss
        # Padding stands on the right, where causal attention never sees it.
        solving = model(input_ids=ids, labels=labels).loss
        (reading + solving).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        report(step, reading.item(), solving.item())
