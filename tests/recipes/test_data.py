"""Rows in the columns of the public data sets, through the conversion, veRL's dataset and scorer.

The rows are made up; columns and types are those of the data sets on the hub.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, concatenate_datasets
from omegaconf import OmegaConf
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.reward_score import default_compute_score

from pcr_plugin.demo.tokenizer import build_tokenizer
from recipes.data import prepare
from recipes.data.prepare import converted, tables
from tests.recipes.commands import FOLDER, SCRIPTS, command_of

SUM = "What is $1 + 1$?"
ADD = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})
PROGRAM = "```python\nprint(sum(map(int, input().split())))\n```"
WRONG_PROGRAM = "```python\nprint(0)\n```"


def box(answer: str) -> str:
    return f"Therefore the answer is \\boxed{{{answer}}}."


def aime(year: int, answer: str) -> dict[str, Any]:
    return {
        "ID": f"{year}-1",
        "Year": year,
        "Problem Number": 1,
        "Question": SUM,
        "Answer": answer,
        "Part": None,
    }


def numina(source: str, solution: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": SUM}, {"role": "assistant", "content": solution}]
    return {"source": source, "problem": SUM, "solution": solution, "messages": messages}


def task(source: str, ability: str, ground_truth: str) -> dict[str, Any]:
    return {
        "data_source": source,
        "prompt": [
            {"role": "system", "content": "When tackling complex tasks, follow these actions."},
            {"role": "user", "content": SUM},
        ],
        "ability": ability,
        "reward_model": {"ground_truth": ground_truth, "style": "rule"},
        "extra_info": {"index": 3, "split": "dummy"},
    }


def dapo(index: str, answer: str) -> dict[str, Any]:
    content = (
        f"{index}. {SUM} The last line of your response should be of the form Answer: $Answer."
    )
    return {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": content}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


MATH = {"problem": SUM, "level": "Level 1", "type": "Algebra", "solution": f"{box('1')} {box('2')}"}
CODE = [task("taco", "code", ADD), task("numina_olympiads", "math", "2")]
# Of every source: rows as on the hub, one good and one bad answer to each that is left.
ROWS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str]]]] = {
    "openai/gsm8k": (
        [{"question": SUM, "answer": "He has <<600+600=1200>>1,200.\n#### 1,200"}],
        [("So it is\n#### 1200", "So it is\n#### 12")],
    ),
    "DigitalLearningGmbH/MATH-lighteval": ([MATH], [(box("2"), box("1"))]),
    "agentica-org/DeepScaleR-Preview-Dataset": (
        [{"problem": SUM, "answer": "-\\frac{2}{3}", "solution": "..."}],
        [(box("-\\dfrac{2}{3}"), box("\\frac{2}{3}"))],
    ),
    "di-zhang-fdu/AIME_1983_2024": (
        [aime(1983, "060"), aime(2023, "7"), aime(2024, "8")],
        [(box("60"), box("61")), ("Answer: 7", box("8"))],
    ),
    "AI-MO/NuminaMath-CoT": (
        [
            numina("olympiads", box("\\frac{1}{2}")),
            numina("olympiads", "A proof has no box."),
            numina("orca_math", box("3")),
            numina("cn_k12", box("x+1")),
        ],
        [(box("0.5"), box("2")), (box("1 + x"), box("x"))],
    ),
    "PRIME-RL/Eurus-2-RL-Data": (CODE, [(PROGRAM, WRONG_PROGRAM)]),
    "BytedTsinghua-SIA/DAPO-Math-17k": (
        [dapo("a", "34"), dapo("a", "34"), dapo("b", "5")],
        [("Answer: 34", "Answer: 35"), ("Answer: $5$", "Answer: 6")],
    ),
    "HuggingFaceH4/aime_2024": (
        [
            {
                "id": 60,
                "problem": SUM,
                "solution": "...",
                "answer": "033",
                "url": "https://example.org",
                "year": "2024",
            }
        ],
        [(box("33"), box("34"))],
    ),
    "math-ai/aime25": ([{"problem": SUM, "answer": "70", "id": "0"}], [(box("70"), box("7"))]),
    "math-ai/amc23": (
        [{"id": 0, "question": SUM, "answer": "27.0", "url": "https://example.org"}],
        [(box("27"), box("72"))],
    ),
    "HuggingFaceH4/MATH-500": (
        [
            {
                "problem": SUM,
                "solution": "...",
                "answer": "\\frac{3}{56}",
                "subject": "Algebra",
                "level": 2,
                "unique_id": "test/algebra/1.json",
            }
        ],
        [(box("\\dfrac{3}{56}"), box("\\frac{3}{55}"))],
    ),
    "math-ai/minervamath": (
        [{"question": SUM, "answer": "4.49"}],
        [(box("4.49"), box("4.5"))],
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer([SUM], size=300)


@pytest.fixture(scope="module")
def settings() -> Any:
    """As in a recipe."""
    return OmegaConf.create(
        {
            "max_prompt_length": 1024,
            "filter_overlong_prompts": True,
            "filter_overlong_prompts_workers": None,
            "truncation": "error",
        }
    )


def score(row: dict[str, Any], answer: str) -> float:
    result = default_compute_score(
        data_source=row["data_source"],
        solution_str=answer,
        ground_truth=row["reward_model"]["ground_truth"],
        extra_info=row["extra_info"],
    )
    return float(result["score"] if isinstance(result, dict) else result)


CASES = [(table, name) for table, files in tables().items() for name in files]


@pytest.mark.parametrize(("table", "name"), CASES)
def test_rows_are_read_and_scored_by_verl(
    table: str, name: str, tmp_path: Path, tokenizer: Any, settings: Any
) -> None:
    sources = tables()[table][name]
    parts = [converted(Dataset.from_list(ROWS[s.hub][0]), s, seed=0) for s in sources]
    answers = [answer for s in sources for answer in ROWS[s.hub][1]]
    path = tmp_path / f"{name}.parquet"
    concatenate_datasets(parts).to_parquet(path)
    dataset = RLHFDataset(str(path), tokenizer=tokenizer, config=settings)
    assert len(dataset) == len(answers)
    for row, (good, bad) in zip(dataset, answers, strict=True):
        assert [message["role"] for message in row["raw_prompt"]] == ["user"]
        assert SUM in row["raw_prompt"][0]["content"]
        assert row["extra_info"]["split"] in {s.split for s in sources}
        assert score(row, good) == 1.0, row
        assert score(row, bad) <= 0.0, row


def test_the_command_writes_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With rows of ours in the place of the hub's: what is asked of it, and where it goes."""
    asked: list[tuple[str, str | None, str]] = []

    def load(hub: str, subset: str | None, *, split: str) -> Dataset:
        asked.append((hub, subset, split))
        return Dataset.from_list(ROWS[hub][0])

    monkeypatch.setattr(prepare, "load_dataset", load)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["prepare.py", *tables()])
    prepare.main()
    assert asked == [
        (source.hub, source.subset, source.split)
        for files in tables().values()
        for sources in files.values()
        for source in sources
    ]
    printed = capsys.readouterr().out
    for table, name in CASES:
        path = tmp_path / table / f"{name}.parquet"
        rows = Dataset.from_parquet(str(path))
        assert f"{path}: {len(rows)} rows" in printed
        assert {"data_source", "prompt", "reward_model", "extra_info"} <= set(rows.column_names)


def test_a_draw_is_of_the_seed() -> None:
    [source] = tables()["numina"]["train"]
    rows = [numina("olympiads", box(str(number))) for number in range(4100)]

    def draw(seed: int) -> list[str]:
        found = converted(Dataset.from_list(rows), source, seed)
        return [row["ground_truth"] for row in found["reward_model"]]

    first = draw(0)
    assert len(first) == len(set(first)) == 4000
    assert draw(0) == first
    assert set(draw(1)) != set(first)


def test_benchmarks_have_metrics_of_their_own() -> None:
    """veRL averages validation scores by `data_source`."""
    sources = tables()["math_benchmarks"]["test"]
    scorers = [
        converted(Dataset.from_list(ROWS[s.hub][0]), s, seed=0)["data_source"][0] for s in sources
    ]
    assert len(set(scorers)) == len(sources) == 5
    page = (FOLDER / "data" / "README.md").read_text()
    for source, scorer in zip(sources, scorers, strict=True):
        assert f"`{source.hub}` | `{scorer}`" in page


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_files_of_a_recipe_are_written(name: str, tmp_path: Path) -> None:
    """By the command that its page names."""
    command = command_of(SCRIPTS[name], tmp_path, DATA_DIR="/data")
    values = dict(override.split("=", 1) for override in command.overrides)
    page = (SCRIPTS[name].parent / "README.md").read_text()
    [line, *_] = [line for line in page.splitlines() if "prepare.py" in line]
    for path in (values["data.train_files"], values["data.val_files"]):
        table, file = Path(path).relative_to("/data").parts
        assert file.removesuffix(".parquet") in tables()[table]
        assert table in line.split()
