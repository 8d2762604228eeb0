"""Arithmetic from reasoning-gym: its questions and its verifiers."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import reasoning_gym

# Small enough for a model that has practised for a minute.
TASKS: dict[str, dict[str, int]] = {
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
}


def entries(
    count: int, seed: int, tasks: Mapping[str, Mapping[str, int]] = TASKS
) -> Iterator[dict[str, Any]]:
    """Questions of all tasks in turn, each with `question`, `answer` and `metadata`.

    Args:
        count: of all tasks together.
        seed: disjoint generators for different seeds.
        tasks: reasoning-gym's names and settings.
    """
    each = -(-count // len(tasks))
    datasets = [
        reasoning_gym.create_dataset(name, size=each, seed=seed * 1_000_003, **settings)
        for name, settings in tasks.items()
    ]
    for index in range(count):
        yield datasets[index % len(datasets)][index // len(datasets)]


def worked_example(entry: dict[str, Any], generator: random.Random) -> str:
    """An answer as a textbook would give it: the bare number or a sentence.

    The verifiers give full marks for the number alone and little for a sentence that has it in,
    so this is where reinforcement learning starts from.
    """
    answer: str = entry["answer"]
    expression: str = entry["metadata"]["expression"]
    return generator.choice(
        [answer, f"The answer is {answer}.", f"{expression} = {answer}", f"It is {answer}."]
    )


def write_prompts(path: Path, questions: Iterable[dict[str, Any]]) -> None:
    """Write questions in the form that veRL's dataset reads.

    Args:
        path: of the parquet file.
        questions: entries of reasoning-gym.
    """
    import datasets

    rows = [
        {
            "data_source": entry["metadata"]["source_dataset"],
            "prompt": [{"role": "user", "content": entry["question"]}],
            "reward_model": {"style": "rule", "ground_truth": entry["answer"]},
            # As text: a parquet column has one type, and metadata differs between tasks.
            "extra_info": {"index": index, "entry": json.dumps(entry)},
        }
        for index, entry in enumerate(questions)
    ]
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows).to_parquet(str(path))
