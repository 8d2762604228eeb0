"""Puts our configuration source in front of the application's own path."""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

_PROVIDER = "pcr_plugin"
_VERL_FOLDER = ("verl/trainer/config", "verl.trainer.config")


class PCRSearchPathPlugin(SearchPathPlugin):
    """Prepends `pcr-plugin://<main path>` in veRL's applications and in recipes built on veRL."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add our source, if the application is one of veRL's.

        Args:
            search_path: Hydra's list of (provider, path), changed in place.
        """
        main = next((e.path for e in search_path.get_path() if e.provider == "main"), None)
        # A recipe has a main path of its own, but it has imported veRL by now.
        from_verl = main is not None and main.rstrip("/").endswith(_VERL_FOLDER)
        if not from_verl and "verl" not in sys.modules:
            return
        search_path.prepend(_PROVIDER, f"pcr-plugin://{main or ''}")
