"""All ranks run one release of this package: an older copy on one node could compute otherwise."""

from typing import Any

from pcr_plugin import version
from pcr_plugin.distributed import gather_lists


def check_releases(group: Any) -> None:
    """Refuse to train with several releases.

    Args:
        group: process group of the ranks of one model.

    Raises:
        RuntimeError: on every rank, with what was found.
    """
    found = sorted(gather_lists([version.__version__], group))
    if len(found) > 1:
        raise RuntimeError(
            f"The actor's workers have different releases of pcr-plugin: {', '.join(found)}. "
            "Install the same one on every node, or give Ray's runtime_env the one to use; "
            "`pcr doctor` shows a node's."
        )
