"""What a user may set, and what it resolves to. Standard library only."""

from pcr_plugin.config.rule import UpdateRule, resolve
from pcr_plugin.config.settings import PCRSettings, VarianceSettings, settings_from_mapping

__all__ = ["PCRSettings", "UpdateRule", "VarianceSettings", "resolve", "settings_from_mapping"]
