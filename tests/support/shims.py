"""Replaced functions of other packages: each named, marked, and loud when the symbol is missing."""

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

_MARKER = "__pcr_test_original__"


@dataclass(frozen=True, kw_only=True)
class Shim:
    """One replaced symbol.

    Attributes:
        symbol: `package.module:name.of.attribute`.
        replace: original -> replacement; its comment says why.
    """

    symbol: str
    replace: Callable[[Any], Any]


_installed: set[Shim] = set()


def install(shims: Iterable[Shim]) -> None:
    """Replace every symbol. Idempotent; by-value imports made before keep the original.

    Raises:
        ImportError: a symbol is missing.
    """
    for shim in shims:
        if shim in _installed:
            continue
        module, _, path = shim.symbol.partition(":")
        *parents, name = path.split(".")
        try:
            owner = pkgutil.resolve_name(f"{module}:{'.'.join(parents)}")
            original = getattr(owner, name)
        except AttributeError as error:
            raise ImportError(f"the tests replace {shim.symbol}, which is missing") from error
        replacement = shim.replace(original)
        setattr(replacement, _MARKER, original)
        setattr(owner, name, replacement)
        _installed.add(shim)
