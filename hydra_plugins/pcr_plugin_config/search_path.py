"""Puts our configuration source in front of the application's own path."""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from hydra_plugins.pcr_plugin_config.source import PROVIDER, Entry

_VERL_FOLDER = ("verl/trainer/config", "verl.trainer.config")


class PCRSearchPathPlugin(SearchPathPlugin):
    """Prepends our source in veRL's applications and in recipes built on veRL."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add our source, if the application is one of veRL's.

        Args:
            search_path: Hydra's list of (provider, path), changed in place.
        """
        paths = {entry.provider: entry.path for entry in search_path.get_path()}
        if PROVIDER in paths:
            return  # Hydra's scan finds this class in the package and in its module
        main = paths.get("main")
        # A recipe has a main path of its own, but it has imported veRL by now.
        from_verl = main is not None and main.rstrip("/").endswith(_VERL_FOLDER)
        if from_verl or "verl" in sys.modules:
            search_path.prepend(PROVIDER, Entry(search_path))
