"""upstream/recipe/pcr meets verl-recipe's rules, and its scripts compose with the real veRL."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from verl.utils.config import omega_conf_to_dataclass, validate_config

RECIPE = Path(__file__).parents[2] / "upstream" / "recipe" / "pcr"
SCRIPTS = sorted(RECIPE.glob("run_*.sh"))
README = (RECIPE / "README.md").read_text()


def required() -> dict[str, str]:
    """The fields of REQUIRED_VERL.txt, as verl-recipe's install script reads them."""
    lines = (RECIPE / "REQUIRED_VERL.txt").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, value in pairs}


def composed(script: Path, place: Path) -> Any:
    """What Hydra makes of a script's command line and one more argument, with our python3."""
    python = place / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(script), "--cfg", "job"],
        cwd=place,
        env={**os.environ, "PATH": f"{place}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return OmegaConf.create(yaml.safe_load(done.stdout))


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
    config = composed(script, tmp_path)
    assert config.actor_rollout_ref.actor.update_rule == "pcr"
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.engine.strategy in ("pcr:fsdp2", "pcr:megatron")
    assert actor.engine.update_rule.name == "pcr"
    validate_config(config, use_reference_policy=True, use_critic=False)
