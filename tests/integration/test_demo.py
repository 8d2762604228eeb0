"""The demo's pieces, each in seconds; `make demo` is the whole."""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from types import FrameType

import pandas
import pytest
import torch
from transformers import AutoTokenizer, Qwen2Tokenizer

from pcr_plugin.cli import demo as command
from pcr_plugin.demo import corpus, figure, recipe, table, tasks
from pcr_plugin.demo.log import RunLog, read_log
from pcr_plugin.demo.model import build_model
from pcr_plugin.demo.perplexity import perplexity, windows
from pcr_plugin.demo.reward import compute_score
from pcr_plugin.demo.start import Start, StartSettings, prepare
from pcr_plugin.demo.tokenizer import build_tokenizer
from pcr_plugin.demo.warm_start import IGNORED, Schedule, encode_example


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return build_tokenizer([corpus.load_topics()["assert"]], 300)


def test_newline_and_digits_are_single_tokens_also_after_loading(
    tokenizer: Qwen2Tokenizer, tmp_path: Path
) -> None:
    build_model(tokenizer, layers=1, width=64, heads=2, positions=64).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for each in (tokenizer, loaded):
        assert len(each.encode("\n")) == 1
        assert len(each.encode("27")) == 2
        assert each.decode(each.encode("a 27\n«ß»")) == "a 27\n«ß»"
    chat = [{"role": "user", "content": "1 + 1 ="}]
    text = loaded.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\n1 + 1 =<|im_end|>\n<|im_start|>assistant\n"
    assert loaded.eos_token == "<|im_end|>"
    assert loaded.encode(text).count(loaded.eos_token_id) == 1


def test_vocabulary_without_room_for_all_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 259"):
        build_tokenizer(["text"], 258)


def test_held_out_text_is_nowhere_in_the_training_text() -> None:
    training, held_out = corpus.split(corpus.load_topics())
    kept = set(corpus.paragraphs(held_out))
    assert kept.isdisjoint(corpus.paragraphs(training))
    assert 0.05 < len(held_out) / len(training) < 0.2
    quoted = {"a": "shared\n\nonly a", "b": "shared\n\nonly b"}
    assert corpus.split(quoted) == ("only b", "shared\n\nonly a")


def test_verifiers_give_full_marks_to_the_number_alone() -> None:
    for entry in tasks.entries(20, seed=3):
        name = entry["metadata"]["source_dataset"]
        extra = {"entry": json.dumps(entry)}
        answer = entry["answer"]

        def score(text: str, name: str = name, extra: dict[str, str] = extra) -> float:
            return compute_score(name, text, ground_truth="", extra_info=extra)

        assert score(answer) == score(f" {answer}\n") == 1.0
        assert 0 < score(f"The answer is {answer}.") < 0.5
        assert score(str(int(answer) + 1000)) < 1.0
        assert score("") == 0.0


def test_prompts_are_as_veRL_reads_them(tmp_path: Path) -> None:
    tasks.write_prompts(tmp_path / "prompts.parquet", tasks.entries(6, seed=2))
    rows = pandas.read_parquet(tmp_path / "prompts.parquet")
    assert set(rows["data_source"]) == set(tasks.TASKS)
    for row in rows.itertuples():
        assert row.prompt[0]["role"] == "user"
        score = compute_score(row.data_source, row.reward_model["ground_truth"], "", row.extra_info)
        assert score == 1.0


def test_training_and_reinforcement_questions_come_from_different_seeds() -> None:
    first = [entry["question"] for entry in tasks.entries(50, seed=1)]
    assert first == [entry["question"] for entry in tasks.entries(50, seed=1)]
    assert first != [entry["question"] for entry in tasks.entries(50, seed=2)]


def test_only_the_answer_is_learnt(tokenizer: Qwen2Tokenizer) -> None:
    entry = next(tasks.entries(1, seed=1))
    ids, labels = encode_example(entry, tokenizer, random.Random(0))
    learnt = labels != IGNORED
    assert torch.equal(ids[learnt], labels[learnt])
    assert entry["answer"] in tokenizer.decode(ids[learnt])
    assert "arithmetic" not in tokenizer.decode(ids[learnt])
    assert ids[-1] == labels[-1] == tokenizer.eos_token_id


def test_perplexity_of_a_uniform_model_is_the_vocabulary(tokenizer: Qwen2Tokenizer) -> None:
    model = build_model(tokenizer, layers=1, width=64, heads=2, positions=64)
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()  # tied: all logits are zero
    rows = windows(corpus.load_topics()["assert"], tokenizer, 32)
    assert rows.shape[1] == 32
    assert perplexity(model, rows) == pytest.approx(len(tokenizer), rel=1e-4)
    assert perplexity(model, rows, batch=1) == pytest.approx(len(tokenizer), rel=1e-4)


def test_warm_start_lowers_both_losses_and_is_reused(tmp_path: Path) -> None:
    settings = StartSettings(
        vocabulary=300,
        layers=1,
        width=64,
        heads=2,
        examples=200,
        prompts=8,
        schedule=Schedule(steps=30, text_rows=4, examples=16),
    )
    lines: list[str] = []
    start = prepare(tmp_path / "start", settings, lines.append)
    losses = [line.split("text ")[1].split(", answers ") for line in lines if "text " in line]
    assert float(losses[-1][0]) < float(losses[0][0])
    assert float(losses[-1][1]) < float(losses[0][1])
    assert start.perplexity < 300 / 2
    assert start.prompts.exists()
    written = (start.model / "model.safetensors").stat().st_mtime_ns
    again = prepare(tmp_path / "start", settings, lines.append)
    assert again.perplexity == start.perplexity
    assert (start.model / "model.safetensors").stat().st_mtime_ns == written


def test_recipe_has_two_micro_batches_and_one_key_for_the_rule(tmp_path: Path) -> None:
    start = Start(tmp_path, 10.0)
    given = dict(
        argument.split("=", 1) for argument in recipe.overrides(start, "pcr", 30, tmp_path)
    )
    sequences = int(given["actor_rollout_ref.actor.ppo_mini_batch_size"]) * int(
        given["actor_rollout_ref.rollout.n"]
    )
    assert sequences >= 2 * int(given["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"])
    assert given["actor_rollout_ref.actor.update_rule"] == "pcr"
    stock = recipe.overrides(start, "null", 30, tmp_path)
    ours = [argument for argument in stock if "update_rule" in argument or ".pcr." in argument]
    assert ours == ["actor_rollout_ref.actor.update_rule=null"]


def write_log(path: Path, lines: list[tuple[int, dict[str, float]]]) -> None:
    path.write_text("".join(json.dumps({"step": s, "data": d}) + "\n" for s, d in lines))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What veRL's file logger writes under a PCR run, cut down to what is shown."""
    lines: list[tuple[int, dict[str, float]]] = []
    for step in range(1, 9):
        if step % 4 == 0:
            lines.append((step, {"demo/perplexity": 10.0 + step}))
        metrics = {
            "training/global_step": float(step),
            "critic/rewards/mean": 0.1 * step,
            "actor/kl_loss": 0.001 * step,
            "actor/pcr/conflict_rate": 0.5,
            "actor/pcr/block/0.mlp/cos": -0.1 * step,
            "actor/pcr/block/1.mlp/cos": 0.1 * step,
        }
        lines.append((step, metrics))
    write_log(tmp_path / "log.jsonl", lines)
    return tmp_path / "log.jsonl"


def test_log_is_followed_line_by_line(log: Path, tmp_path: Path) -> None:
    content = log.read_bytes()
    growing = tmp_path / "growing.jsonl"
    run = RunLog(growing)
    assert run.update() == []
    cut = content.index(b"\n") + 10  # in the middle of the second line
    growing.write_bytes(content[:cut])
    assert run.update() == [1]
    assert run.update() == []
    growing.write_bytes(content)
    assert run.update() == list(range(2, 9))
    assert run.steps[4]["demo/perplexity"] == 14.0
    assert "critic/rewards/mean" in run.steps[4]


def test_table_has_the_means_since_the_last_measurement(log: Path) -> None:
    rows = [line.split() for line in table.table(read_log(log), 9.5).splitlines()]
    assert rows[0] == ["step", *table.COLUMNS]
    assert rows[1] == ["0", "9.50"]
    assert rows[2] == ["4", "0.25", "0.0025", "0.50", "-", "14.00"]
    assert rows[3] == ["8", "0.65", "0.0065", "0.50", "-", "18.00"]


def test_figure_is_drawn_also_for_a_stock_run(log: Path, tmp_path: Path) -> None:
    run = read_log(log)
    assert list(figure.block_cosines(run)) == ["0.mlp", "1.mlp"]
    stock = tmp_path / "stock.jsonl"
    write_log(stock, [(1, {"training/global_step": 1.0, "critic/rewards/mean": 0.2})])
    both = {"pcr": run, "null": read_log(stock)}
    for name, runs in (("both", both), ("stock", {"null": read_log(stock)})):
        figure.draw(runs, 9.5, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_empty_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match="no steps"):
        read_log(tmp_path / "log.jsonl")


def test_failure_of_verl_is_shown_and_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that veRL refuses ends the command with the reason and status 1."""
    monkeypatch.setattr("pcr_plugin.demo.start.prepare", lambda folder, *_: Start(folder, 10.0))
    status = command.run(["--output", str(tmp_path), "--rule", "nonsense"])
    assert status == 1
    shown = capsys.readouterr().err
    assert "nonsense" in shown
    assert "pcgrad" in shown, "the rules that there are"


def wait_for(file: Path) -> str:
    """The content of a file that is about to be written whole."""
    for _ in range(600):
        if file.exists():
            return file.read_text()
        time.sleep(0.1)
    raise AssertionError(f"no {file}")


def test_sigterm_ends_the_training_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcr_plugin.demo.start.prepare", lambda folder, *_: Start(folder, 10.0))
    # The training runs in the run's folder, where this stands in front of veRL.
    stand_in = tmp_path / "pcr" / "verl" / "trainer" / "main_ppo.py"
    stand_in.parent.mkdir(parents=True)
    for package in (stand_in.parents[1], stand_in.parent):
        (package / "__init__.py").touch()
    stand_in.write_text(
        "import os, time\n"
        "open('new', 'w').write(str(os.getpid()))\n"
        "os.rename('new', 'process')\n"
        "time.sleep(300)\n"
    )
    process = tmp_path / "pcr" / "process"

    def terminate() -> None:
        wait_for(process)
        os.kill(os.getpid(), signal.SIGTERM)

    def unexpected(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the demo left SIGTERM as it was")

    before = signal.signal(signal.SIGTERM, unexpected)
    try:
        killer = threading.Thread(target=terminate)
        killer.start()
        assert command.run(["--output", str(tmp_path)]) == 1
        killer.join()
        assert signal.getsignal(signal.SIGTERM) is unexpected, "the caller's handler is back"
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(process.read_text()), 0)
