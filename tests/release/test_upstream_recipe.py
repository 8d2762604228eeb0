"""upstream/recipe/pcr meets verl-recipe's rules, and its scripts compose with the real veRL."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from verl.utils.config import omega_conf_to_dataclass, validate_config

RECIPE = Path(__file__).parents[2] / "upstream" / "recipe" / "pcr"
SCRIPTS = sorted(RECIPE.glob("run_*.sh"))
README = (RECIPE / "README.md").read_text()


def required() -> dict[str, str]:
    """The fields of REQUIRED_VERL.txt, as verl-recipe's install script reads them."""
    lines = (RECIPE / "REQUIRED_VERL.txt").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, value in pairs}


def command_of(script: Path, place: Path) -> list[str]:
    """The arguments that bash hands to python3 in a script, with one more from the user."""
    python = place / "python3"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(script), "trainer.total_epochs=1"],
        env={**os.environ, "PATH": f"{place}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def composed(command: list[str]) -> DictConfig:
    """What Hydra makes of such a command."""
    assert command[:2] == ["-m", "verl.trainer.main_ppo"]
    options = dict(word.removeprefix("--").split("=", 1) for word in command[2:4])
    with initialize_config_dir(options["config-path"], version_base=None):
        return compose(options["config-name"], overrides=command[4:])


def test_required_verl_has_the_fields_of_a_pinned_release() -> None:
    fields = required()
    assert fields["MODE"] == "pinned_tag"
    assert fields["UPSTREAM"] == "https://github.com/verl-project/verl.git"
    release = fields["TAG"].removeprefix("v")
    assert fields["PIP_INSTALL"] == f"pip install verl=={release}"
    pinned = (RECIPE.parents[2] / "requirements-cpu.txt").read_text()
    assert f"verl=={release} " in pinned


def test_the_readme_has_the_section_and_names_every_file() -> None:
    assert re.search(
        r"^## Required `verl` version\n\nSee \[`REQUIRED_VERL.txt`\]\(REQUIRED_VERL.txt\)",
        README,
        re.MULTILINE,
    )
    assert len(SCRIPTS) == 2
    for path in (*SCRIPTS, *RECIPE.glob("config/*.yaml")):
        assert f"]({path.relative_to(RECIPE)})" in README
    for path in SCRIPTS:
        assert os.access(path, os.X_OK)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_s_command_is_valid(script: Path, tmp_path: Path) -> None:
    config = composed(command_of(script, tmp_path))
    assert config.trainer.total_epochs == 1
    assert config.actor_rollout_ref.actor.update_rule == "pcr"
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.engine.strategy in ("pcr:fsdp2", "pcr:megatron")
    assert actor.engine.update_rule.name == "pcr"
    validate_config(config, use_reference_policy=True, use_critic=False)
