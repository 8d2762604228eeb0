"""Entry point of the group `verl.plugins`: imported by every `import verl`.

Without `VERL_PLATFORM=cpu` this is all that happens: one look at the environment.
"""

import logging
import os

if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    try:
        from pcr_plugin.verl_cpu.activation import activate

        activate()
    except Exception:
        # veRL logs a plugin's error at DEBUG and goes on.
        logging.getLogger(__name__).exception("VERL_PLATFORM=cpu could not be set up")
        raise
