"""The model that every run starts from: built once, and found again by what it is made of."""

import hashlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer

from examples.study import identity, tasks
from pcr_plugin.demo import corpus
from pcr_plugin.demo.model import build_model
from pcr_plugin.demo.perplexity import perplexity, windows
from pcr_plugin.demo.start import WINDOW
from pcr_plugin.demo.tasks import entries, write_prompts
from pcr_plugin.demo.tokenizer import END_OF_TURN, START_OF_TURN, build_tokenizer
from pcr_plugin.demo.warm_start import Schedule, encode, learn

_VOCABULARY_EXAMPLES = 4000  # so many that whole words of the questions become tokens
_DRAWN = 2000  # ten times as many as there are
_EXAMPLES_SEED, _TRAIN_SEED, _TEST_SEED = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """What a start is made of.

    Attributes:
        vocabulary: tokens.
        layers: of the decoder.
        width: of the residual stream.
        heads: of attention.
        examples: worked examples to learn from, of all kinds together.
        prompts: questions for reinforcement learning.
        tests: questions of each kind that answers are measured on.
        windows: rows of held-out text that reading is measured on.
        schedule: of the supervised steps.
        seed: of weights and order.
    """

    vocabulary: int = 640
    layers: int = 3
    width: int = 96
    heads: int = 3
    examples: int = 9000
    prompts: int = 4000
    tests: int = 128
    windows: int = 32
    schedule: Schedule = field(
        default_factory=lambda: Schedule(steps=1200, text_rows=2, examples=40, learning_rate=3e-3)
    )
    seed: int = 0

    def made_of(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        kinds = {"trained": tasks.TRAINED, "held_out": tasks.HELD_OUT, "skill": tasks.SKILL}
        return asdict(self) | {"kinds": kinds, "code": identity.code()}


@dataclass(frozen=True)
class Start:
    """A prepared folder.

    Attributes:
        folder: has `model` (a checkpoint with its tokenizer), `train.parquet`, `test.parquet` and
            `about.json`.
    """

    folder: Path

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.folder / "model"

    @property
    def train(self) -> Path:
        """File of the questions that are trained on."""
        return self.folder / "train.parquet"

    @property
    def test(self) -> Path:
        """File of the questions, trained and held-out kinds, that answers are measured on."""
        return self.folder / "test.parquet"


def located(folder: Path, settings: StartSettings) -> Start:
    """Where a start is, or will be.

    Args:
        folder: of all starts.
        settings: what it is made of; names its folder.
    """
    content = json.dumps(settings.made_of(), sort_keys=True)
    return Start(folder / hashlib.sha256(content.encode()).hexdigest()[:12])


def prepare(folder: Path, settings: StartSettings, say: Callable[[str], None]) -> Start:
    """Build a start, or take the one that is there.

    Args:
        folder: of all starts.
        settings: what it is made of; names its folder.
        say: shows a line of progress.
    """
    start = located(folder, settings)
    about = start.folder / "about.json"
    if about.exists():
        return start
    start.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    reading = _build(start, settings, say)
    found = {"settings": settings.made_of(), "perplexity": reading}
    unfinished = about.with_suffix(".new")
    unfinished.write_text(json.dumps(found | {"seconds": time.monotonic() - began}, indent=2))
    unfinished.rename(about)
    say(f"start: {start.folder}, held-out perplexity {reading:.2f}")
    return start


def held_out_text(tokenizer: Qwen2Tokenizer, rows: int) -> Tensor:
    """Text that nothing is trained on: `[rows, WINDOW]` token ids."""
    _, held_out = corpus.split(corpus.load_topics())
    return windows(held_out, tokenizer, WINDOW)[:rows]


def distinct_entries(kinds: tasks.Kinds) -> list[dict[str, Any]]:
    """Every question of some kinds once, as far as drawing many finds them.

    Args:
        kinds: reasoning-gym's names and settings.
    """
    by_question: dict[str, dict[str, Any]] = {}
    for entry in entries(_DRAWN, _TEST_SEED, kinds):
        by_question.setdefault(entry["question"], entry)
    return [by_question[question] for question in sorted(by_question)]


def _build(start: Start, settings: StartSettings, say: Callable[[str], None]) -> float:
    torch.set_num_threads(1)  # the steps are too small to share
    torch.manual_seed(settings.seed)
    generator = random.Random(settings.seed)
    text, _ = corpus.split(corpus.load_topics())
    write_prompts(start.train, entries(settings.prompts, _TRAIN_SEED, tasks.TRAINED))
    tested = tasks.TRAINED | tasks.HELD_OUT
    write_prompts(start.test, entries(settings.tests * len(tested), _TEST_SEED, tested))
    learnt = list(entries(settings.examples, _EXAMPLES_SEED, tested | tasks.SKILL))
    chats = [(entry["question"], tasks.answer(entry, generator)) for entry in learnt]
    written = "\n".join(map(_chat, chats[:_VOCABULARY_EXAMPLES]))
    tokenizer = build_tokenizer([text, written], settings.vocabulary)
    model = build_model(
        tokenizer,
        layers=settings.layers,
        width=settings.width,
        heads=settings.heads,
        positions=2 * WINDOW,
    )
    say(f"start: {model.num_parameters():,} weights learn to read and to calculate")
    examples = [encode(question, answer, tokenizer) for question, answer in chats]
    steps = settings.schedule.steps

    def report(step: int, reading: float, solving: float) -> None:
        if step % (steps // 6 or 1) == 0:
            say(f"  supervised {step}/{steps}  loss: text {reading:.2f}, answers {solving:.2f}")

    learn(model, windows(text, tokenizer, WINDOW), examples, settings.schedule, report)
    model.save_pretrained(start.model)
    tokenizer.save_pretrained(start.model)
    return perplexity(model, held_out_text(tokenizer, settings.windows))


def _chat(pair: tuple[str, str]) -> str:
    # So that the vocabulary has the words of the questions and of ChatML.
    question, answer = pair
    return f"{START_OF_TURN}user\n{question}{END_OF_TURN}\n{START_OF_TURN}assistant\n{answer}"
