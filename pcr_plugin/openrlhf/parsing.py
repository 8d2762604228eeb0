"""The one patch of this binding: OpenRLHF's parser is inside `if __name__ == "__main__"`.

`argparse.ArgumentParser.parse_args` is replaced until OpenRLHF has called it once.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pcr_plugin.openrlhf.options import add_options

# An option that only OpenRLHF's parser has.
_OF_OPENRLHF = "--actor.model_name_or_path"


@contextmanager
def options_added(parsed: Callable[[argparse.Namespace], None]) -> Iterator[None]:
    """Add our keys to OpenRLHF's parser while its command starts.

    Args:
        parsed: gets the arguments before OpenRLHF does.

    Raises:
        RuntimeError: OpenRLHF has ended without asking for its arguments as 0.11.2 does.
    """
    stock = argparse.ArgumentParser.parse_args
    done = False

    def parse_args(self: argparse.ArgumentParser, *arguments: Any, **named: Any) -> Any:
        nonlocal done
        if _OF_OPENRLHF not in self._option_string_actions:
            return stock(self, *arguments, **named)
        done = True
        argparse.ArgumentParser.parse_args = stock  # type: ignore[method-assign]
        add_options(self)
        found = stock(self, *arguments, **named)
        parsed(found)
        return found

    argparse.ArgumentParser.parse_args = parse_args  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_args = stock  # type: ignore[method-assign]
    if not done:
        raise RuntimeError(
            "openrlhf.cli.train_ppo_ray did not parse its arguments as 0.11.2 does, so "
            "--actor.update_rule had no effect; this release of OpenRLHF is not supported"
        )
