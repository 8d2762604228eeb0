"""Put the CPU platform together, or take it apart again."""

import importlib
import logging
import os
import sys
from types import ModuleType
from typing import Any

import wrapt

from pcr_plugin.verl_cpu import distribution, patches

_ENGINES = "verl.workers.engine.fsdp.transformer_impl"
_ROLLOUTS = "verl.workers.rollout.replica"

# Ray's own override of what a node offers. On a CPU neither number is a piece of hardware: a
# "device" is one worker process, and veRL reserves a core for each of a dozen idle actors and
# waits for ever on a laptop that has fewer.
LOGICAL_RESOURCES = '{"CPU": 64, "NPU": 8}'

# Ray looks for the model of the "NPU" and logs a traceback at ERROR when there is none.
_RAY_DETECTION = logging.getLogger("ray._private.accelerators.npu")

_active = False


def activate() -> None:
    """Make veRL, in this process and the ones it starts, run on the CPU. Idempotent.

    Registers the platform, the FSDP engines and the vLLM rollout through veRL's registries, the
    last two when veRL imports the module in question, and applies `patches`.

    Raises:
        RuntimeError: veRL has already chosen another platform in this process.
        ImportError: veRL moved a name that is needed.
    """
    global _active
    if _active:
        return
    os.environ["VERL_PLATFORM"] = "cpu"
    os.environ.setdefault("RAY_OVERRIDE_RESOURCES", LOGICAL_RESOURCES)
    _RAY_DETECTION.setLevel(logging.CRITICAL)
    distribution.install()
    patches.apply()
    _active = True
    wrapt.register_post_import_hook(_register_engines, _ENGINES)
    wrapt.register_post_import_hook(_register_rollout, _ROLLOUTS)
    # Last, so that a failure above leaves veRL with "Unknown platform 'cpu'" and not half a
    # platform.
    _register_platform()


def deactivate() -> None:
    """Undo `activate` in this process, so that veRL picks its platform anew."""
    global _active
    if not _active:
        return
    _active = False
    manager = _platform_manager()
    manager.PlatformRegistry._platforms.pop("cpu", None)
    manager._current_platform = None
    patches.revert()
    distribution.uninstall()
    _RAY_DETECTION.setLevel(logging.NOTSET)
    if os.environ.get("RAY_OVERRIDE_RESOURCES") == LOGICAL_RESOURCES:
        del os.environ["RAY_OVERRIDE_RESOURCES"]
    os.environ.pop("VERL_PLATFORM", None)
    if _ENGINES in sys.modules:
        _forget_engines()
    if _ROLLOUTS in sys.modules:
        rollouts = sys.modules[_ROLLOUTS]
        rollouts.RolloutReplicaRegistry.register("vllm", rollouts._load_vllm)


def _platform_manager() -> Any:
    return importlib.import_module("verl.plugin.platform.platform_manager")


def _register_platform() -> None:
    from pcr_plugin.verl_cpu.platform import CPUPlatform

    manager = _platform_manager()
    chosen = manager._current_platform
    if chosen is not None and chosen.device_name != "cpu":
        raise RuntimeError(
            f"veRL already runs on {chosen.device_name!r} in this process; set VERL_PLATFORM=cpu "
            "before `import verl`."
        )
    manager.PlatformRegistry.register(platform="cpu")(CPUPlatform)


def _stock_engines(module: ModuleType) -> dict[str, type]:
    """Model type to stock engine class; both serve `fsdp` and `fsdp2`."""
    return {
        "language_model": module.FSDPEngineWithLMHead,
        "value_model": module.FSDPEngineWithValueHead,
    }


def _register_engines(module: ModuleType) -> None:
    registry = module.EngineRegistry
    for model_type, engine in _stock_engines(module).items():
        for backend in ("fsdp", "fsdp2"):
            if _active and "cpu" not in registry._engines[model_type][backend]:
                registry.register(model_type=model_type, backend=backend, device="cpu")(engine)


def _forget_engines() -> None:
    module = sys.modules[_ENGINES]
    for model_type in _stock_engines(module):
        for backend in ("fsdp", "fsdp2"):
            module.EngineRegistry._engines[model_type][backend].pop("cpu", None)


def _register_rollout(module: ModuleType) -> None:
    def load() -> Any:
        from pcr_plugin.verl_cpu.rollout import CPUvLLMReplica

        return CPUvLLMReplica

    if _active:
        module.RolloutReplicaRegistry.register("vllm", load)
