"""What a recipe's script runs, found by running it with another `python3`."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

FOLDER = Path(__file__).parents[2] / "recipes"
SCRIPTS = {script.parent.name: script for script in sorted(FOLDER.glob("*/run.sh"))}
RULES = ("null", "pcr")

# Says what it was called with, one argument after a zero byte each.
ECHO = "#!/bin/sh\nprintf '%s\\0' \"$@\"\n"


@dataclass(frozen=True)
class Command:
    """A run of `python3 -m <module> <overrides>`."""

    module: str
    overrides: tuple[str, ...]

    def composed(self) -> DictConfig:
        """The configuration that veRL's command gets."""
        with initialize_config_module("verl.trainer.config", version_base=None):
            return compose("ppo_trainer", overrides=list(self.overrides))


def with_programs(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which programs are replaced, and no setting of a recipe is made.

    Args:
        folder: for the programs.
        **programs: the text of each.
    """
    for name, text in programs.items():
        program = folder / name
        program.write_text(text)
        program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": "/home/somebody"}


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
    option, module, *overrides = run.stdout.split("\0")[:-1]
    assert option == "-m"
    return Command(module, tuple(overrides))
