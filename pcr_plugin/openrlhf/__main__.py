"""`python -m pcr_plugin.openrlhf <OpenRLHF's arguments> [--actor.update_rule ...]`."""

import argparse
import runpy
import sys

from openrlhf.utils.config import hierarchize

from pcr_plugin.openrlhf.options import rule_of
from pcr_plugin.openrlhf.parsing import options_added
from pcr_plugin.openrlhf.refusals import check_arguments
from pcr_plugin.weightings import load

_COMMAND = "openrlhf.cli.train_ppo_ray"
_STOCK_ACTOR = "PolicyModelActor"


def main() -> None:
    """Run OpenRLHF's command, with the actor's class of ours if there is a rule."""
    with options_added(_choose_actor):
        runpy.run_module(_COMMAND, run_name="__main__", alter_sys=True)


def _choose_actor(parsed: argparse.Namespace) -> None:
    """Before Ray starts: check the rule, and name our class in OpenRLHF's command.

    Raises:
        ValueError: names key, value and what is allowed.
    """
    args = hierarchize(parsed)
    rule = rule_of(args)
    if rule is None:
        return
    if rule.weighting is not None:
        load(rule.weighting)
    check_arguments(args, rule)
    from pcr_plugin.openrlhf.worker import remote

    command = sys.modules["__main__"]
    if not hasattr(command, _STOCK_ACTOR):
        raise RuntimeError(f"{_COMMAND} has no {_STOCK_ACTOR}; this release is not supported")
    setattr(command, _STOCK_ACTOR, remote())


if __name__ == "__main__":
    main()
