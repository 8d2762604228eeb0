"""`--actor.update_rule` and `--actor.pcr.*`: OpenRLHF's spelling of the keys, and the rule.

The keys are the fields of `PCRSettings`; a flag that is not given leaves nothing in the arguments.
"""

import argparse
import logging
from dataclasses import fields
from typing import Any

from pcr_plugin.config import (
    PCRSettings,
    UpdateRule,
    VarianceSettings,
    resolve,
    settings_from_mapping,
)
from pcr_plugin.config.settings import NAMED_SCOPES

logger = logging.getLogger(__name__)

RULE = "actor.update_rule"
PREFIX = "actor.pcr"
_BOOLEANS = {"true": True, "false": False}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the keys to OpenRLHF's parser.

    Args:
        parser: before it has parsed anything.
    """
    group = parser.add_argument_group("PCR (pcr-plugin)")
    group.add_argument(
        "--" + RULE,
        default=argparse.SUPPRESS,
        help="pcr, pcgrad, soft, sum or torchjd:<Weighting>: two gradients instead of one for the "
        "actor; observe: OpenRLHF's own update, with statistics of both every "
        "--actor.pcr.observe_every steps; without it the update is OpenRLHF's own",
    )
    for key, default in _keys("", PCRSettings):
        group.add_argument(
            f"--{PREFIX}.{key}",
            default=argparse.SUPPRESS,
            nargs="+" if key == "scope" else None,
            metavar="VALUE",
            help=f"default {_written(default)}",
        )


def _keys(prefix: str, kind: type) -> list[tuple[str, Any]]:
    """Dotted names of the settings, and their defaults."""
    found: list[tuple[str, Any]] = []
    for each in fields(kind):
        if each.name == "variance":
            found += _keys("variance.", VarianceSettings)
        else:
            found.append((prefix + each.name, each.default))
    return found


def _written(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def rule_of(args: Any) -> UpdateRule | None:
    """The rule that OpenRLHF's arguments ask for.

    Args:
        args: after OpenRLHF's `hierarchize`, which makes dots to nested namespaces.

    Returns:
        `None` for OpenRLHF's own update.

    Raises:
        ValueError: names key, value and what is allowed.
    """
    given = _plain(getattr(args.actor, "pcr", None))
    settings = settings_from_mapping(given)
    name = getattr(args.actor, "update_rule", None)
    rule = resolve(None if name == "null" else name, settings)
    if rule is None and given:
        logger.warning("without --%s the --%s.* keys that are set do nothing", RULE, PREFIX)
    return rule


def _plain(node: Any) -> dict[str, Any]:
    """Nested namespaces of text as a nested mapping of values."""
    if node is None:
        return {}
    return {
        key: _plain(value) if hasattr(value, "__dict__") else _value(key, value)
        for key, value in vars(node).items()
    }


def _value(key: str, text: Any) -> Any:
    """What YAML would make of it; the settings say what is allowed."""
    if key == "scope" and not isinstance(text, str):
        return text[0] if len(text) == 1 and text[0] in NAMED_SCOPES else list(text)
    if not isinstance(text, str):
        return text
    if text in ("null", "None"):
        return None
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
