"""veRL's Megatron engine on the CPU in the workers of a whole run.

To be named in `VERL_USE_EXTERNAL_MODULES`, veRL's own way to extend every process of a run: each
`import verl` imports this. Of torch and Megatron-core nothing is replaced before a process builds
an engine, so the driver, the rollout and the rewards stay as they are.
"""

import threading
from types import ModuleType
from typing import Any

import wrapt

from tests.support import megatron_cpu, megatron_verl_cpu
from tests.support.shims import install

_CONFIGURATION = "verl.workers.config.engine"
_ENGINE = "verl.workers.engine.megatron.transformer_impl"

_thread = threading.local()


def _prepare() -> None:
    """Put the CPU in place of the GPU, for the calling thread: the one that Ray calls methods in,
    which is another than the one that imports.
    """
    if not hasattr(_thread, "prepared"):
        megatron_cpu.install()
        megatron_verl_cpu.install()
        _thread.prepared = True


def _register(module: ModuleType) -> None:
    class CPUMegatronEngine(module.MegatronEngineWithLMHead):  # type: ignore[misc,name-defined]
        """The stock engine, registered for the CPU."""

        def __init__(self, *, engine_config: Any, **rest: Any) -> None:
            _prepare()
            role = "reference" if engine_config.forward_only else "actor"
            print(f"the {role}'s engine is {type(self).__name__}")
            super().__init__(engine_config=engine_config, **rest)

    module.EngineRegistry.register("language_model", "megatron", "cpu")(CPUMegatronEngine)


def _allow_float32(module: ModuleType) -> None:
    install(shim for shim in megatron_verl_cpu.SHIMS if shim.symbol.startswith(_CONFIGURATION))


wrapt.register_post_import_hook(_register, _ENGINE)
wrapt.register_post_import_hook(_allow_float32, _CONFIGURATION)
