"""The places where veRL and torch leave no choice but to replace a function.

All of them are here. A patch is installed when the module that holds its symbol is imported, or
at once if it has been; by-value imports made before that keep the original, so `apply` belongs
before veRL's workers are imported (the entry point is).
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import wrapt

_MARKER = "__pcr_cpu_original__"


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One replaced symbol.

    Attributes:
        module: where the symbol is looked up by the code that runs.
        symbol: its name there.
        distribution: whose version an error message names.
        replace: original -> replacement.
    """

    module: str
    symbol: str
    distribution: str
    replace: Callable[[Any], Any]


def _gloo_once(original: Callable[..., Any]) -> Callable[..., Any]:
    # veRL asks for one backend of the CPU and one of the device; here both are
    # "cpu:gloo,cpu:gloo", and torch refuses a device that is named twice. The platform can only
    # choose the second half.
    @functools.wraps(original)
    def initialize(timeout_second: int | None = None, backend: str | None = None) -> Any:
        return original(timeout_second=timeout_second, backend=backend or "gloo")

    return initialize


def _without_pinned_memory(original: type) -> type:
    # The reference policy is always built with CPUOffloadPolicy(pin_memory=True), and pinning
    # memory needs an accelerator.
    class UnpinnedCPUOffloadPolicy(original):
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    return UnpinnedCPUOffloadPolicy


def _without_offloading(original: type) -> type:
    # The same for FSDP1, which pins whatever it offloads. The parameters are on the CPU anyway.
    class NoCPUOffload(original):
        def __init__(self, offload_params: bool = False) -> None:
            super().__init__(offload_params=False)

    return NoCPUOffload


def _allow_cpu_modules(original: Callable[..., Any]) -> Callable[..., Any]:
    # FSDP1 refuses to broadcast CPU parameters because NCCL cannot; gloo can.
    @functools.wraps(original)
    def check(module_states: Any) -> None:
        return None

    return check


def _stay_in_place(original: Callable[..., Any]) -> Callable[..., Any]:
    # FSDP1 only: moves flat parameters to f"{device_name}:{device_id}". The platform's device id
    # cannot be an index, because `tensor.to(0)` means an accelerator.
    @functools.wraps(original)
    def load(model: Any) -> None:
        return None

    return load


def _with_configured_attention(original: Callable[..., Any]) -> Callable[..., Any]:
    # veRL asks for flash-attention here, whatever `override_config.attn_implementation` says; that
    # stands in the model's configuration, from which the actor's loader takes it.
    @functools.wraps(original)
    def load(local_path: str, torch_dtype: Any, model_config: Any, trust_remote_code: bool) -> Any:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(
            local_path,
            dtype=torch_dtype,
            config=model_config,
            trust_remote_code=trust_remote_code,
        )

    return load


PATCHES = (
    Patch(
        module="verl.utils.distributed",
        symbol="initialize_global_process_group_ray",
        distribution="verl",
        replace=_gloo_once,
    ),
    Patch(
        module="verl.workers.engine.fsdp.transformer_impl",
        symbol="CPUOffloadPolicy",
        distribution="verl",
        replace=_without_pinned_memory,
    ),
    Patch(
        module="verl.utils.fsdp_utils",
        symbol="load_fsdp_model_to_gpu",
        distribution="verl",
        replace=_stay_in_place,
    ),
    Patch(
        module="verl.utils.model",
        symbol="load_valuehead_model",
        distribution="verl",
        replace=_with_configured_attention,
    ),
    Patch(
        module="torch.distributed.fsdp",
        symbol="CPUOffload",
        distribution="torch",
        replace=_without_offloading,
    ),
    Patch(
        module="torch.distributed.fsdp._init_utils",
        symbol="_check_module_states_for_sync_module_states",
        distribution="torch",
        replace=_allow_cpu_modules,
    ),
)

_applied = False


def apply() -> None:
    """Install every patch, now or when its module is imported. Idempotent.

    Raises:
        ImportError: here, or out of the import of the module, if a symbol is missing.
    """
    global _applied
    if _applied:
        return
    _applied = True
    for patch in PATCHES:
        wrapt.register_post_import_hook(functools.partial(_install, patch), patch.module)


def revert() -> None:
    """Put the originals back. Idempotent; by-value imports made meanwhile keep the patch."""
    global _applied
    _applied = False
    for patch in PATCHES:
        module = sys.modules.get(patch.module)
        original = getattr(getattr(module, patch.symbol, None), _MARKER, None)
        if original is not None:
            setattr(module, patch.symbol, original)


def _install(patch: Patch, module: ModuleType) -> None:
    if not _applied:
        return  # a hook cannot be taken back; it outlives `revert`
    current = getattr(module, patch.symbol, None)
    if current is None:
        raise ImportError(
            f"VERL_PLATFORM=cpu replaces {patch.module}.{patch.symbol}, which "
            f"{patch.distribution} {_version(patch.distribution)} does not have. Use the "
            "versions that docs/cpu.md lists, or unset VERL_PLATFORM."
        )
    if hasattr(current, _MARKER):
        return
    replacement = patch.replace(current)
    setattr(replacement, _MARKER, current)
    setattr(module, patch.symbol, replacement)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(unknown version)"
