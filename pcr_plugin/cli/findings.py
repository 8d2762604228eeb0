"""What a check of `pcr doctor` says."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        good: whether a run can work.
        text: what was found.
        remedy: what to do if not good; also a hint where nothing is wrong.
    """

    good: bool
    text: str
    remedy: str = ""


Check = Callable[[], Finding]


def guarded(check: Check, remedy: str) -> Finding:
    """A check's finding; where it ends with an error, that.

    Args:
        check: what to run.
        remedy: against any error in it.
    """
    try:
        return check()
    except Exception as error:  # a broken environment can fail in any way; that is the finding
        return Finding(False, f"{check.__name__.strip('_')}: {error}", remedy)


def installed(distribution: str) -> str | None:
    """Its version, `None` if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def importable(module: str) -> bool:
    """Whether there is a package of this name, installed or from a folder of sources."""
    spec = find_spec(module)
    # A folder of that name without a package in it has no origin.
    return spec is not None and spec.origin is not None
