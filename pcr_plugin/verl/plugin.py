"""Entry point of the group `verl.plugins`: runs in every process that imports veRL.

Nothing depends on it: the switch lives in the configuration, which names our classes, so it works
also with `VERL_USE_EXTERNAL_PLUGINS=none`. It is here to say early, and not at DEBUG level as
veRL does, that this installation cannot work.
"""

import logging

from pcr_plugin.verl import host

logger = logging.getLogger(__name__)

_problem = host.another_series()
if _problem:
    logger.error(_problem)
