"""Lets Hydra know the keys `update_rule` and `pcr` of veRL's actor, without a file of veRL copied.

Hydra imports this package in every application of the environment, so it imports Hydra alone and
does nothing unless the application is veRL's.
"""

from hydra_plugins.pcr_plugin_config.search_path import PCRSearchPathPlugin
from hydra_plugins.pcr_plugin_config.source import PCRConfigSource

__all__ = ["PCRConfigSource", "PCRSearchPathPlugin"]
