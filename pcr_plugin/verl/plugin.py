"""Entry point of the group `verl.plugins`: runs in every process that imports veRL.

Nothing depends on it: the switch lives in the configuration, which names our classes, so it works
also with `VERL_USE_EXTERNAL_PLUGINS=none`. It is here to say early, and not at DEBUG level as
veRL does, that this installation cannot work.
"""

import logging
from importlib.metadata import PackageNotFoundError, version

logger = logging.getLogger(__name__)

SUPPORTED = ("0.9",)

loaded = False


def check_host() -> str | None:
    """What is wrong with the veRL next to us.

    Returns:
        A sentence with the remedy, or `None` if its version is one we support.
    """
    try:
        found = version("verl")
    except PackageNotFoundError:
        return None  # a source tree on PYTHONPATH has no version to compare
    if ".".join(found.split(".")[:2]) in SUPPORTED:
        return None
    return (
        f"pcr-plugin supports veRL {', '.join(SUPPORTED)}.x, but {found} is installed. Runs with "
        'update_rule may fail; install a fitting pair, for example `pip install "verl>=0.9,<0.10"`.'
    )


_problem = check_host()
if _problem:
    logger.error(_problem)
loaded = True
