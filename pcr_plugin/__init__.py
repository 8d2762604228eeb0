"""PCR (Probabilistic Conflict Resolution, arXiv 2602.06453) for frameworks that post-train LLMs.

The folders follow the data: `config` -> `blocks` -> `gradients` (two of them) -> `statistics`
-> `rules` -> `gradients.combine` -> `metrics`. `verl` and `verl_cpu` bind them to a host and are
imported by nobody.

Names are resolved on first use, so that `import pcr_plugin` costs nothing: Hydra's plugin scan
and every veRL process import it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pcr_plugin.version import __version__

if TYPE_CHECKING:
    from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings
    from pcr_plugin.rules import BlockWeights, decide

_HOME = {
    "PCRSettings": "pcr_plugin.config",
    "UpdateRule": "pcr_plugin.config",
    "VarianceSettings": "pcr_plugin.config",
    "BlockWeights": "pcr_plugin.rules",
    "decide": "pcr_plugin.rules",
}

__all__ = [
    "BlockWeights",
    "PCRSettings",
    "UpdateRule",
    "VarianceSettings",
    "__version__",
    "decide",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pcr_plugin' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
