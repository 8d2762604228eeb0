"""What a model has learnt, and what it has kept: reading, and a skill that nothing asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Qwen2Tokenizer

from examples.study import tasks
from examples.study.start import distinct_entries, held_out_text
from pcr_plugin.demo.perplexity import perplexity
from pcr_plugin.demo.warm_start import IGNORED, encode

PERPLEXITY = "study/perplexity"
SKILL = "study/skill"
SKILL_LOSS = "study/skill_loss"
SOLVED = "study/solved"


class Exam:
    """Questions with their right answers, for one pass of a model.

    Args:
        entries: of reasoning-gym; the answers are bare, the style that the verifier takes.
        tokenizer: of the models.
    """

    def __init__(self, entries: Sequence[dict[str, Any]], tokenizer: Qwen2Tokenizer) -> None:
        encoded = [encode(entry["question"], entry["answer"], tokenizer) for entry in entries]
        self._ids = pad_sequence(
            [ids for ids, _ in encoded], batch_first=True, padding_value=tokenizer.pad_token_id
        )
        labels = pad_sequence(
            [labels for _, labels in encoded], batch_first=True, padding_value=IGNORED
        )
        self._wanted = labels[:, 1:]
        self._asked = self._wanted != IGNORED

    @torch.no_grad()
    def greedy(self, model: PreTrainedModel) -> float:
        """Share of the questions whose greedy answer is right.

        Args:
            model: in evaluation mode.
        """
        # It is just when every token of the right one is the likeliest.
        likeliest = model(input_ids=self._ids).logits[:, :-1].argmax(dim=-1)
        right = ((likeliest == self._wanted) | ~self._asked).all(dim=1)
        return float(right.double().mean())

    def sampled(self, model: PreTrainedModel) -> float:
        """pass@1 at temperature 1 without the noise of sampling: the probability of the answers.

        Args:
            model: in evaluation mode.
        """
        return float(self._logs(model).exp().mean())

    def loss(self, model: PreTrainedModel) -> float:
        """Mean of -log of the probability of a right answer, in nats.

        Args:
            model: in evaluation mode.
        """
        return -float(self._logs(model).mean())

    @torch.no_grad()
    def _logs(self, model: PreTrainedModel) -> Tensor:
        """log p of every right answer, `[questions]`."""
        logs = model(input_ids=self._ids).logits[:, :-1].double().log_softmax(dim=-1)
        chosen = logs.gather(2, self._wanted.clamp(min=0).unsqueeze(2)).squeeze(2)
        return (chosen * self._asked).sum(dim=1)  # type: ignore[no-any-return]


class Kept:
    """Measures models that answer with one tokenizer.

    Args:
        tokenizer: see above.
        windows: rows of held-out text.
    """

    def __init__(self, tokenizer: Qwen2Tokenizer, windows: int) -> None:
        self.text = held_out_text(tokenizer, windows)
        self._skill = Exam(distinct_entries(tasks.SKILL), tokenizer)
        self._kinds = {
            name: Exam(distinct_entries({name: settings}), tokenizer)
            for name, settings in (tasks.TRAINED | tasks.HELD_OUT).items()
        }

    def metrics(self, model: PreTrainedModel) -> dict[str, float]:
        """What is left of reading and of the skill, and what of the questions is solved.

        Args:
            model: in evaluation mode.

        Returns:
            Perplexity of the held-out text, share of the skill's facts and their loss, and of every
            kind of question the probability of the right answer, bare, as the verifier wants it.
        """
        found = {f"{SOLVED}/{name}": exam.sampled(model) for name, exam in self._kinds.items()}
        reading = perplexity(model, self.text)
        kept = {SKILL: self._skill.greedy(model), SKILL_LOSS: self._skill.loss(model)}
        return found | kept | {PERPLEXITY: reading}


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
    found: Tensor = (ours.exp() * (ours - theirs)).sum(dim=-1)
    return found


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
