"""A recipe's file with code in our keys: it is refused by name, and nothing of it is run."""

import contextlib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from verl.utils.config import validate_config

from pcr_plugin.verl.in_driver import CheckInDriver
from tests.integration.recipes import RECIPE

HEAD = """
hydra:
  searchpath: [pkg://verl.trainer.config]
defaults: [ppo_trainer, _self_]
actor_rollout_ref:
  actor:
"""
# What stands below `actor`, and words of the error.
HOSTILE = {
    "an object of Python": (
        "{update_rule: pcr, pcr: {alpha: !!python/object/apply:os.mkdir [FILE]}}",
        ["python/object/apply:os.mkdir"],
    ),
    "an expression as a number": (
        "{update_rule: soft, pcr: {alpha: \"__import__('os').mkdir('FILE')\"}}",
        ["pcr.alpha="],
    ),
    "an expression as a rule": (
        "{update_rule: \"__import__('os').mkdir('FILE')\"}",
        ["update_rule="],
    ),
    "a function as a weighting": ("{update_rule: 'torchjd:os.mkdir'}", ["update_rule="]),
    "a module as an estimator": (
        "{update_rule: pcr, pcr: {variance: {estimator: os.mkdir}}}",
        ["pcr.variance.estimator='os.mkdir'"],
    ),
    "a path as a preset": ("{update_rule: pcr, pcr: {preset: ../../FILE}}", ["pcr.preset="]),
    "no mapping": ("{update_rule: pcr, pcr: [1, 2]}", ["'mine'", "Cannot merge"]),
    "an unknown key": ("{update_rule: pcr, pcr: {gates: false}}", ["pcr.gates"]),
    "no YAML": ("{update_rule: pcr, pcr: {gate: [}}", ["mine"]),
}


def validated(folder: Path, actor: str) -> None:
    """What `main_ppo --config-dir <folder> --config-name mine` does before it starts Ray."""
    (folder / "mine.yaml").write_text(f"{HEAD}    {actor}\n")
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("mine", overrides=list(RECIPE))
    CheckInDriver().on_job_start(config)
    validate_config(config, use_reference_policy=True, use_critic=False)


@pytest.mark.parametrize("what", HOSTILE)
def test_refused_by_name_and_not_run(what: str, tmp_path: Path) -> None:
    text, words = HOSTILE[what]
    place = tmp_path / "made"
    with pytest.raises((Exception, SystemExit)) as caught:
        validated(tmp_path, text.replace("FILE", str(place)))
    said = [str(caught.value), str(caught.value.__cause__)]
    for each in words:
        assert any(each in message for message in said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml"]


def test_such_a_file_with_good_values_is_taken(tmp_path: Path) -> None:
    """Otherwise the cases above could fail for any reason."""
    validated(tmp_path, "{update_rule: soft, pcr: {alpha: 0.5, scope: [mlp], gate: false}}")


CALL = "{_target_: pathlib.Path.touch, self: FILE}"


@pytest.mark.parametrize("rule", ["pcr", "null"])
@pytest.mark.parametrize(
    ("block", "key"),
    [
        ("scope: [CALL]", "scope[0]"),
        ("variance: {ema: CALL}", "variance.ema"),
        ("variance: {_target_: pathlib.Path.touch, self: FILE}", "variance"),
        ("scope: '${actor_rollout_ref.actor.checkpoint.save_contents}'", "scope[0]"),
    ],
)
def test_a_target_in_our_keys_is_refused_and_not_called(
    rule: str, block: str, key: str, tmp_path: Path
) -> None:
    """Hydra would call it while it builds the block, with the rule off, too."""
    place = tmp_path / "made"
    elsewhere = ", checkpoint: {save_contents: [CALL]}" if "$" in block else ""
    actor = f"{{update_rule: {rule}, pcr: {{{block}}}{elsewhere}}}"
    with pytest.raises(SystemExit) as stopped:
        validated(tmp_path, actor.replace("CALL", CALL).replace("FILE", str(place)))
    name = f"actor_rollout_ref.actor.pcr.{key}._target_='pathlib.Path.touch' is not possible"
    assert str(stopped.value).startswith(name)
    assert not place.exists()


def test_a_target_in_verls_keys_is_called_by_hydra(tmp_path: Path) -> None:
    """With any rule: a recipe's file is trusted as a script is."""
    place = tmp_path / "made"
    call = CALL.replace("FILE", str(place))
    with contextlib.suppress(Exception):
        validated(tmp_path, f"{{checkpoint: {{save_contents: [{call}]}}}}")
    assert place.exists()
