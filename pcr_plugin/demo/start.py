"""The model that reinforcement learning starts from, with its data, built once per folder."""

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Tokenizer
from transformers.utils.logging import disable_progress_bar

from pcr_plugin.demo import corpus, tasks
from pcr_plugin.demo.model import build_model
from pcr_plugin.demo.perplexity import perplexity, windows
from pcr_plugin.demo.tokenizer import END_OF_TURN, START_OF_TURN, build_tokenizer
from pcr_plugin.demo.warm_start import Schedule, encode_example, learn

WINDOW = 128  # tokens of text that are read at a time
MEASURED_WINDOWS = 96


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """What a start is made of; a folder made with other settings is rebuilt.

    Attributes:
        vocabulary: tokens.
        layers: of the decoder.
        width: of the residual stream.
        heads: of attention.
        examples: worked examples to learn from.
        prompts: questions for reinforcement learning, other ones.
        schedule: of the supervised steps.
        seed: of weights and order.
    """

    vocabulary: int = 512
    layers: int = 4
    width: int = 128
    heads: int = 4
    examples: int = 8000
    prompts: int = 2000
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0


@dataclass(frozen=True)
class Start:
    """A prepared folder.

    Attributes:
        folder: has `model` (a Hugging Face checkpoint with its tokenizer), `prompts.parquet` and
            `about.json`.
        perplexity: of the model on the held-out text.
    """

    folder: Path
    perplexity: float

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.folder / "model"

    @property
    def prompts(self) -> Path:
        """File of the prompts."""
        return self.folder / "prompts.parquet"


def prepare(folder: Path, settings: StartSettings, say: Callable[[str], None]) -> Start:
    """Build the start, or take the one that is there.

    Args:
        folder: where it goes.
        settings: what it is made of.
        say: shows a line of progress.
    """
    about = folder / "about.json"
    wanted = asdict(settings) | {"tasks": tasks.TASKS}
    if about.exists():
        found = json.loads(about.read_text())
        if found["settings"] == wanted:
            say(f"start: {folder} (held-out perplexity {found['perplexity']:.2f})")
            return Start(folder, found["perplexity"])
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    result = _build(folder, settings, say)
    seconds = time.monotonic() - began
    about.write_text(
        json.dumps({"settings": wanted, "perplexity": result, "seconds": seconds}, indent=2)
    )
    say(f"start: {folder} (held-out perplexity {result:.2f}, {seconds:.0f} s)")
    return Start(folder, result)


def held_out_windows(tokenizer: Qwen2Tokenizer) -> torch.Tensor:
    """The text that perplexity is measured on: `[MEASURED_WINDOWS, WINDOW]` token ids."""
    _, held_out = corpus.split(corpus.load_topics())
    return windows(held_out, tokenizer, WINDOW)[:MEASURED_WINDOWS]


def _build(folder: Path, settings: StartSettings, say: Callable[[str], None]) -> float:
    disable_progress_bar()
    # The steps are too small to share: a second thread helps little on an idle machine, and on a
    # busy one each waits for the other.
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    generator = random.Random(settings.seed)
    text, _ = corpus.split(corpus.load_topics())
    questions = list(tasks.entries(settings.examples, seed=1))
    tasks.write_prompts(folder / "prompts.parquet", tasks.entries(settings.prompts, seed=2))
    tokenizer = build_tokenizer([text, _chats(questions[:500], generator)], settings.vocabulary)
    examples = [encode_example(entry, tokenizer, generator) for entry in questions]
    model = build_model(
        tokenizer,
        layers=settings.layers,
        width=settings.width,
        heads=settings.heads,
        positions=2 * WINDOW,
    )
    say(f"start: {model.num_parameters():,} weights learn to read and to calculate")
    rows = windows(text, tokenizer, WINDOW)
    learn(model, rows, examples, settings.schedule, _progress(settings.schedule.steps, say))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return perplexity(model, held_out_windows(tokenizer))


def _chats(questions: list[dict[str, Any]], generator: random.Random) -> str:
    # So that the vocabulary has the words of the questions and of ChatML.
    return "\n".join(
        f"{START_OF_TURN}user\n{entry['question']}{END_OF_TURN}\n{START_OF_TURN}assistant\n"
        + tasks.worked_example(entry, generator)
        for entry in questions
    )


def _progress(steps: int, say: Callable[[str], None]) -> Callable[[int, float, float], None]:
    def report(step: int, reading: float, solving: float) -> None:
        if step % (steps // 6 or 1) == 0:
            say(f"  supervised {step}/{steps}  loss: text {reading:.2f}, answers {solving:.2f}")

    return report
