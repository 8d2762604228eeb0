"""PCR in veRL 0.9: configuration, engine backends `pcr:<backend>` and the loss split.

Importing this package imports nothing; `pcr_plugin.verl.actor_config` is what Hydra
instantiates, and `pcr_plugin.verl.enable` is the same switch from code.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcr_plugin.verl.actor_config import enable

__all__ = ["enable"]


def __getattr__(name: str) -> Any:
    if name != "enable":
        raise AttributeError(f"module 'pcr_plugin.verl' has no attribute {name!r}")
    from pcr_plugin.verl.actor_config import enable

    return enable
