"""What a run is, and which runs are seeds of one configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pcr_plugin.plots.runs.groups import differing, group, seeds_of
from pcr_plugin.plots.runs.run import Run, name_runs, read_runs
from pcr_plugin.plots.runs.table import read_table
from tests.support.plot_logs import (
    configuration,
    write_console,
    write_events,
    write_hydra,
    write_json_lines,
    write_run,
)

STEPS = [(1, {"actor/kl_coef": 0.05, "actor/lr": 5e-7}), (2, {"actor/lr": 1e-6})]


def runs_of(*paths: Path, labels: Sequence[str] = ()) -> list[Run]:
    return read_runs(name_runs(paths, list(labels)))


def names(runs: list[Run]) -> list[tuple[str, int]]:
    return [(each.name, len(each.runs)) for each in group(runs)]


def test_settings_from_hydra_beside_the_log(tmp_path: Path) -> None:
    write_run(tmp_path, STEPS, configuration("soft", alpha=0.5, beta=0.1, seed=7))
    [run] = runs_of(tmp_path)
    wanted = {"rule": "soft", "preset": "paper", "scope": "mlp", "alpha": 0.5}
    assert wanted.items() <= run.settings.items()
    assert run.settings["beta"] == 0.1
    assert run.settings["learning_rate"] == 1e-6
    assert run.seeds["data.seed"] == 7
    assert run.source == tmp_path / ".hydra" / "config.yaml"


def test_settings_from_veRL_s_default_places(tmp_path: Path) -> None:
    """`outputs/<day>/<time>` beside `<project>/<experiment>.jsonl`, and TensorBoard's folder."""
    for hour, (rule, seed) in enumerate([("pcgrad", 1), ("pcr", 1), ("soft", 2)]):
        write_hydra(tmp_path / f"outputs/2026-11-21/1{hour}-00-00", configuration(rule, seed=seed))
    write_json_lines(tmp_path / "toy" / "seed1.jsonl", STEPS)
    write_events(tmp_path / "tensorboard_log" / "toy" / "seed2", STEPS)
    write_json_lines(tmp_path / "toy" / "other.jsonl", STEPS)
    found = runs_of(
        tmp_path / "toy" / "seed1.jsonl",
        tmp_path / "tensorboard_log",
        tmp_path / "toy" / "other.jsonl",
    )
    # the newest of the two with this name; nothing is known of the last one
    assert [run.settings.get("rule") for run in found] == ["pcr", "soft", None]


def test_settings_from_what_was_printed(tmp_path: Path) -> None:
    write_console(tmp_path / "a" / "run.log", STEPS, configuration("pcgrad"))
    write_json_lines(tmp_path / "b" / "log.jsonl", STEPS)
    write_console(tmp_path / "b" / "verl.log", [], configuration("pcr"))
    found = runs_of(tmp_path / "a", tmp_path / "b")
    assert [run.settings["rule"] for run in found] == ["pcgrad", "pcr"]


def test_without_a_configuration_the_metrics_say_what_they_can(tmp_path: Path) -> None:
    [run] = runs_of(write_json_lines(tmp_path / "mine.jsonl", STEPS))
    assert run.settings == {"beta": 0.05, "learning_rate": 1e-6}
    assert run.source is None
    assert names([run]) == [("mine", 1)]


def test_runs_that_differ_in_the_seed_alone_are_one_configuration(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for rule in (None, "pcr"):
            values = configuration(rule, seed=seed)
            values["trainer"]["default_local_dir"] = f"/checkpoints/{rule}/{seed}"
            write_run(tmp_path / f"{rule}{seed}", STEPS, values)
    found = group(runs_of(tmp_path))
    assert [(each.name, len(each.runs)) for each in found] == [("stock", 3), ("pcr", 3)]
    assert seeds_of(found[1].runs) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"actor_rollout_ref.actor.kl_loss_coef": 0.1}, ["pcr, β 0.05", "pcr, β 0.1"]),
        (
            {"actor_rollout_ref.actor.pcr.scope": ["q_proj"]},
            ["pcr, scope mlp", "pcr, scope q_proj"],
        ),
        ({"data.train_batch_size": 16}, ["pcr, train_batch_size 8", "pcr, train_batch_size 16"]),
        ({"trainer.save_freq": 5, "actor_rollout_ref.actor.pcr.log_blocks": False}, ["pcr"]),
    ],
)
def test_any_key_that_bears_on_training_tells_runs_apart(
    tmp_path: Path, change: dict[str, Any], expected: list[str]
) -> None:
    write_run(tmp_path / "a", STEPS, configuration(seed=1))
    values = configuration(seed=2)
    for key, value in change.items():
        *path, last = key.split(".")
        target = values
        for part in path:
            target = target[part]
        target[last] = value
    write_run(tmp_path / "b", STEPS, values)
    assert {name for name, _ in names(runs_of(tmp_path))} == set(expected)


def test_what_follows_from_another_setting_is_not_in_the_name(tmp_path: Path) -> None:
    """Two keys that change together, and one that Hydra writes as a reference to another."""
    for number, (size, mini) in enumerate([(8, 4), (16, 8), (8, 4)]):
        values = configuration(seed=number)
        values["data"]["train_batch_size"] = size
        values["actor_rollout_ref"]["actor"]["ppo_mini_batch_size"] = mini
        values["critic"] = {"mini": "${actor_rollout_ref.actor.ppo_mini_batch_size}"}
        if number < 2:
            write_run(tmp_path / str(number), STEPS, values)
        else:
            values["critic"] = {"mini": mini}  # as the console prints it
            write_console(tmp_path / str(number) / "run.log", STEPS, values)
    found = runs_of(tmp_path)
    expected = {("pcr, ppo_mini_batch_size 4", 2), ("pcr, ppo_mini_batch_size 8", 1)}
    assert set(names(found)) == expected
    mini, size = "actor_rollout_ref.actor.ppo_mini_batch_size", "data.train_batch_size"
    assert differing(found) == [mini, size]


def test_beta_is_0_where_the_kl_is_nowhere_and_unknown_where_it_is_in_the_reward(
    tmp_path: Path,
) -> None:
    for name, in_reward in (("a", False), ("b", True)):
        values = configuration(None)
        values["actor_rollout_ref"]["actor"]["use_kl_loss"] = False
        values["algorithm"] = {"use_kl_in_reward": in_reward}
        write_run(tmp_path / name, STEPS, values)
    found = runs_of(tmp_path)
    assert [run.settings.get("beta") for run in found] == [0.0, None]


def test_runs_about_which_nothing_is_known_are_never_averaged(tmp_path: Path) -> None:
    paths = [write_json_lines(tmp_path / name / "log.jsonl", STEPS) for name in ("a", "b")]
    assert names(runs_of(*paths)) == [("a/log", 1), ("b/log", 1)]


def test_the_same_file_twice_is_one_run(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "log.jsonl", STEPS)
    assert len(runs_of(path, tmp_path, tmp_path / ".." / tmp_path.name)) == 1


def test_labels_put_runs_together_unless_they_differ_in_a_named_setting(tmp_path: Path) -> None:
    other = [(1, {"actor/kl_coef": 0.5, "actor/lr": 1e-6})]
    paths = [
        write_json_lines(tmp_path / f"{index}.jsonl", steps)
        for index, steps in enumerate([STEPS, STEPS, other])
    ]
    found = names(runs_of(*paths, labels=["ours", "ours", "ours"]))
    assert found == [("ours, β 0.05", 2), ("ours, β 0.5", 1)]
    with pytest.raises(ValueError, match="--label is given 2 times for 3 runs"):
        runs_of(*paths, labels=["ours", "ours"])


def test_table_of_runs(tmp_path: Path) -> None:
    for name in "abc":
        write_json_lines(tmp_path / f"{name}.jsonl", STEPS)
    table = tmp_path / "runs.yaml"
    table.write_text(
        "runs:\n"
        "  - {path: a.jsonl, rule: pcr, scope: [x, y], beta: 1e-3, seed: 1}\n"
        "  - {path: b.jsonl, rule: pcr, scope: [x, y], beta: 0.001, seed: 2}\n"
        "  - {path: c.jsonl, label: mine, rule: null}\n"
    )
    found = group(read_runs(read_table(table)))
    assert [(each.name, len(each.runs)) for each in found] == [
        ("pcr, β 0.001", 2),
        ("mine, β 0.05", 1),
    ]
    assert seeds_of(found[0].runs) == ["1", "2"]
    assert found[0].settings["scope"] == ("x", "y")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("runs: [", "no YAML"),
        ("- a", "`runs:` with a list"),
        ("runs: []", "`runs:` with a list"),
        ("runs: [{beta: 1}]", "no `path`"),
        ("runs: [{path: a.jsonl, betta: 1}]", "betta is no key; allowed are path, label, seed"),
        ("runs: [{path: a.jsonl, beta: much}]", "beta='much': a number is needed"),
        ("runs: [{path: a.jsonl, scope: {a: 1}}]", "scope=.*a list of words"),
        ("runs: [{path: b.jsonl}]", "b.jsonl: no such file"),
        ("runs: !!python/object/apply:os.system ['true']", "no YAML"),
    ],
)
def test_bad_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    write_json_lines(tmp_path / "a.jsonl", STEPS)
    (tmp_path / "runs.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "runs.yaml")
