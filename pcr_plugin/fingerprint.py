"""Which copy of the package this is: two checkouts of one release can differ."""

import hashlib
from pathlib import Path

from pcr_plugin import version

_DIGITS = 8


def this_copy(folder: Path = Path(__file__).parent) -> str:
    """The release, and a digest of the source files.

    Args:
        folder: the package's.

    Returns:
        For example `0.1.0 [3f9c21aa]`.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{version.__version__} [{digest.hexdigest()[:_DIGITS]}]"
