"""What a recipe's script runs, found by running it with another `python3`."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from tests.recipes.stand_ins import ECHO, calls, with_programs

FOLDER = Path(__file__).parents[2] / "recipes"
SCRIPTS = {script.parent.name: script for script in sorted(FOLDER.glob("*/run.sh"))}
RULES = ("null", "pcr")


@dataclass(frozen=True)
class Command:
    """A run of `python3 -m <module> <overrides>`."""

    module: str
    overrides: tuple[str, ...]

    def composed(self) -> DictConfig:
        """The configuration that veRL's command gets."""
        with initialize_config_module("verl.trainer.config", version_base=None):
            return compose("ppo_trainer", overrides=list(self.overrides))


def command_in(call: list[str]) -> Command:
    """Of the arguments of `python3`."""
    option, module, *overrides = call
    assert option == "-m"
    return Command(module, tuple(overrides))


def command_of(script: Path, folder: Path, *arguments: str, **environment: str) -> Command:
    """What a script runs.

    Args:
        script: a recipe's `run.sh`.
        folder: to work in.
        *arguments: of the script.
        **environment: its settings.
    """
    environment = with_programs(folder, python3=ECHO) | environment
    run = subprocess.run(
        ["bash", str(script), *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    [call] = calls(run.stdout)
    return command_in(call)
