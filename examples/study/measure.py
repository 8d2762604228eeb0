"""What a model has kept: reading, and the skill that nothing asks for any more."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Qwen2Tokenizer

from examples.study import tasks
from examples.study.start import held_out_text, skill_entries
from pcr_plugin.demo.perplexity import perplexity
from pcr_plugin.demo.warm_start import IGNORED, encode

PERPLEXITY = "study/perplexity"
SKILL = "study/skill"


class Kept:
    """Measures models that answer with one tokenizer.

    Args:
        tokenizer: see above.
        windows: rows of held-out text.
    """

    def __init__(self, tokenizer: Qwen2Tokenizer, windows: int) -> None:
        self.text = held_out_text(tokenizer, windows)
        facts = [
            encode(entry["question"], tasks.answer(entry, random.Random(0)), tokenizer)
            for entry in skill_entries()
        ]
        self._ids = pad_sequence(
            [ids for ids, _ in facts], batch_first=True, padding_value=tokenizer.pad_token_id
        )
        self._labels = pad_sequence(
            [labels for _, labels in facts], batch_first=True, padding_value=IGNORED
        )

    def metrics(self, model: PreTrainedModel) -> dict[str, float]:
        """Perplexity of the held-out text, and the share of the facts that are still known.

        Args:
            model: in evaluation mode.
        """
        return {PERPLEXITY: perplexity(model, self.text), SKILL: self._skill(model)}

    @torch.no_grad()
    def _skill(self, model: PreTrainedModel) -> float:
        # A greedy answer is right just when every token of the right one is the likeliest.
        likeliest = model(input_ids=self._ids).logits[:, :-1].argmax(dim=-1)
        wanted = self._labels[:, 1:]
        right = ((likeliest == wanted) | (wanted == IGNORED)).all(dim=1)
        return float(right.double().mean())


@torch.no_grad()
def divergence(policy: PreTrainedModel, reference: PreTrainedModel, ids: Tensor) -> Tensor:
    """KL(policy || reference) of every next token, summed over the vocabulary, in nats.

    Args:
        policy: see above.
        reference: with the same vocabulary.
        ids: `[rows, length]` token ids, padding on the right.

    Returns:
        `[rows, length - 1]`.
    """
    ours = policy(input_ids=ids).logits[:, :-1].log_softmax(dim=-1)
    theirs = reference(input_ids=ids).logits[:, :-1].log_softmax(dim=-1)
    return (ours.exp() * (ours - theirs)).sum(dim=-1)


def validation_metrics(
    sources: Sequence[str], questions: Sequence[str], marks: Mapping[str, list[Any]]
) -> dict[str, float]:
    """pass@1 and the mean reward under the names that veRL's trainer gives them.

    Args:
        sources: kind of every answer's question.
        questions: their names.
        marks: `acc` and `reward` of every answer.
    """
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    found = {}
    by_source = process_validation_metrics(list(sources), list(questions), dict(marks))
    for source, variables in by_source.items():
        for variable, values in variables.items():
            section = "val-core" if variable == "acc" else "val-aux"
            for name, value in values.items():
                if name.startswith("mean@"):
                    found[f"{section}/{source}/{variable}/{name}"] = float(value)
    return found
