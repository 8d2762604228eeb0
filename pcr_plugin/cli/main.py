"""`pcr <command>`: each command is a module with `run(arguments) -> exit status`."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from pcr_plugin.version import __version__

# Imported when asked for, so that `pcr --help` needs no torch.
COMMANDS = {
    "doctor": ("pcr_plugin.cli.doctor", "check this environment; exit status 1 with the remedy"),
    "demo": ("pcr_plugin.cli.demo", "run veRL with PCR on this machine's CPU"),
    "plot": ("pcr_plugin.cli.plot", "figures and a report from the logs of veRL runs"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: command and its arguments; from the command line if `None`.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="pcr", description="PCR for frameworks that train LLMs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, (_, purpose) in COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    chosen = parser.parse_args(given[:1]).command
    status: int = import_module(COMMANDS[chosen][0]).run(given[1:])
    return status


if __name__ == "__main__":
    raise SystemExit(main())
