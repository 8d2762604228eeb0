"""A CPU platform for veRL: `VERL_PLATFORM=cpu` runs its real trainer without an accelerator.

For tests, demos and laptops; independent of the update rules. See `docs/cpu.md`. Importing this
package does nothing; `activate` does, and veRL's entry point calls it when asked to.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcr_plugin.verl_cpu.activation import activate, deactivate

__all__ = ["activate", "deactivate"]


def __getattr__(name: str) -> Any:
    # Every `import verl` imports this package, whatever its platform.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pcr_plugin.verl_cpu import activation

    return getattr(activation, name)
