"""Public data sets as the parquet files that veRL's RLHFDataset reads.

    python recipes/data/prepare.py gsm8k math_benchmarks

writes `$DATA_DIR/<table>/<file>.parquet` (default `~/data`), where the recipes look for them. A
row's `data_source` is the name by which veRL's `default_compute_score` chooses its scorer; the
validation metrics are named by it, too.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets, load_dataset
from verl.utils.reward_score.math_reward import last_boxed_only_string, remove_boxed

Row = dict[str, Any]

# Both as in veRL's own examples.
AFTER_HASHES = 'Let\'s think step by step and output the final answer after "####".'
IN_A_BOX = "Let's think step by step and output the final answer within \\boxed{}."

# veRL's names for scorers that compare answers as mathematics (prime_math), and the sources of
# NuminaMath that it has them for.
PRIME_MATH = "numina_olympiads"
NUMINA = ("aops_forum", "synthetic_math", "amc_aime", "synthetic_amc", "cn_k12", "olympiads")


@dataclass(frozen=True)
class Source:
    """One data set of the hub, and how a row of it becomes one of veRL.

    Args:
        hub: name on the hub.
        split: the hub's split.
        convert: from a row to a row of veRL, without its index.
        subset: the hub's configuration, if there are several.
        keep: which rows are used.
        sample: that many rows, drawn at random; all if `None`.
    """

    hub: str
    split: str
    convert: Callable[[Row], Row]
    subset: str | None = None
    keep: Callable[[Row], bool] = lambda row: True
    sample: int | None = None


def question(text: str, answer: str, scorer: str, instruction: str = IN_A_BOX) -> Row:
    """A mathematical question as veRL has it.

    Args:
        text: the question.
        answer: what the scorer compares with.
        scorer: veRL's `data_source`.
        instruction: how to answer, so that the scorer finds it.
    """
    return {
        "data_source": scorer,
        "prompt": [{"role": "user", "content": f"{text} {instruction}"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
    }


def boxed_answer(solution: str) -> str | None:
    """What stands in the last box of a solution; `None` without one."""
    box = last_boxed_only_string(solution)
    return None if box is None or not box.startswith("\\boxed{") else remove_boxed(box)


def _gsm8k(row: Row) -> Row:
    answer = row["answer"].split("#### ")[-1].replace(",", "")
    return question(row["question"], answer, "openai/gsm8k", AFTER_HASHES)


def _math(row: Row) -> Row:
    answer = boxed_answer(row["solution"])
    return question(row["problem"], str(answer), "DigitalLearningGmbH/MATH-lighteval")


def _numina(row: Row) -> Row:
    answer = boxed_answer(row["solution"])
    return question(row["problem"], str(answer), f"numina_{row['source']}")


def _integer(scorer: str, text: str, answer: str) -> Callable[[Row], Row]:
    """Answers that are integers and are compared as they are written: without leading zeros."""
    return lambda row: question(row[text], str(int(float(row[answer]))), scorer)


def _text(scorer: str, text: str, answer: str) -> Callable[[Row], Row]:
    return lambda row: question(row[text], str(row[answer]), scorer)


def _as_it_is(row: Row) -> Row:
    """Rows that are veRL's already, without system prompts, which belong to other methods."""
    return {
        "data_source": row["data_source"],
        "prompt": [message for message in row["prompt"] if message["role"] == "user"],
        "ability": row["ability"],
        "reward_model": {"style": "rule", "ground_truth": row["reward_model"]["ground_truth"]},
    }


class _FirstOfEach:
    """Of rows with the same prompt, of which DAPO-Math-17k has about a hundred each, the first."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, row: Row) -> bool:
        prompt = row["prompt"][-1]["content"]
        if prompt in self._seen:
            return False
        self._seen.add(prompt)
        return True


def tables() -> Mapping[str, Mapping[str, list[Source]]]:
    """What can be written: table -> file -> the sources that are put together in it."""
    gsm8k, math = "openai/gsm8k", "DigitalLearningGmbH/MATH-lighteval"
    eurus = "PRIME-RL/Eurus-2-RL-Data"
    return {
        "gsm8k": {
            "train": [Source(gsm8k, "train", _gsm8k, subset="main")],
            "test": [Source(gsm8k, "test", _gsm8k, subset="main")],
        },
        "math": {
            "train": [Source(math, "train", _math)],
            "test": [Source(math, "test", _math)],
        },
        "deepscaler": {
            "train": [
                Source(
                    "agentica-org/DeepScaleR-Preview-Dataset",
                    "train",
                    _text(PRIME_MATH, "problem", "answer"),
                )
            ],
        },
        "aime": {
            "train": [
                Source(
                    "di-zhang-fdu/AIME_1983_2024",
                    "train",
                    _integer("aime_1983_2023", "Question", "Answer"),
                    keep=lambda row: int(row["Year"]) <= 2023,
                )
            ],
        },
        "numina": {"train": [_numina_sample()]},
        "eurus_code": {
            name: [Source(eurus, split, _as_it_is, keep=lambda row: row["ability"] == "code")]
            for name, split in (("train", "train"), ("test", "validation"))
        },
        "dapo_math": {
            "train": [
                Source("BytedTsinghua-SIA/DAPO-Math-17k", "train", _as_it_is, keep=_FirstOfEach())
            ],
        },
        "math_benchmarks": {"test": _math_benchmarks()},
    }


def _numina_sample() -> Source:
    def usable(row: Row) -> bool:
        return row["source"] in NUMINA and bool(boxed_answer(row["solution"]))

    return Source("AI-MO/NuminaMath-CoT", "train", _numina, keep=usable, sample=4000)


def _math_benchmarks() -> list[Source]:
    return [
        Source("HuggingFaceH4/aime_2024", "train", _integer("aime_2024", "problem", "answer")),
        Source("math-ai/aime25", "test", _integer("aime_2025", "problem", "answer")),
        Source("math-ai/amc23", "test", _text("numina_amc_aime", "question", "answer")),
        Source(
            "HuggingFaceH4/MATH-500",
            "test",
            _text("HuggingFaceH4/MATH-500", "problem", "answer"),
        ),
        Source("math-ai/minervamath", "test", _text(PRIME_MATH, "question", "answer")),
    ]


def converted(rows: Dataset, source: Source, seed: int) -> Dataset:
    """Rows of the hub as rows of veRL.

    Args:
        rows: as `datasets.load_dataset` gives them.
        source: what they are.
        seed: of the draw, where a sample is taken.
    """
    rows = rows.filter(source.keep)
    if source.sample is not None and source.sample < len(rows):
        rows = rows.shuffle(seed=seed).select(range(source.sample))

    def convert(row: Row, index: int) -> Row:
        return source.convert(row) | {"extra_info": {"index": index, "split": source.split}}

    return rows.map(convert, with_indices=True, remove_columns=rows.column_names)


def main() -> None:
    """Write the tables that are named on the command line."""
    known = tables()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="+", choices=sorted(known), metavar="TABLE")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("DATA_DIR", "~/data")))
    parser.add_argument("--seed", type=int, default=42, help="of the draw from NuminaMath")
    arguments = parser.parse_args()
    for table in arguments.tables:
        folder = arguments.out.expanduser() / table
        folder.mkdir(parents=True, exist_ok=True)
        for name, sources in known[table].items():
            parts = [
                converted(load_dataset(s.hub, s.subset, split=s.split), s, arguments.seed)
                for s in sources
            ]
            path = folder / f"{name}.parquet"
            concatenate_datasets(parts).to_parquet(path)
            print(f"{path}: {sum(map(len, parts))} rows")


if __name__ == "__main__":
    main()
