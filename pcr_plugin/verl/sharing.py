"""Where one forward pass can serve both objectives, and where it is not shown to.

Each reason is found as early as its key is known: `pcr.passes=shared_forward`, and what else needs
one forward pass, is then refused, and `auto` takes two.
"""

import re
from typing import Any

from torch import nn

from pcr_plugin.config import UpdateRule
from pcr_plugin.config.checks import reject
from pcr_plugin.verl import host

# Keys of the model that make backward passes which cannot run twice, or not over some of the
# parameters alone.
_MODEL = {
    "use_liger": "its kernels write gradients over what the graph has saved",
    "enable_activation_offload": "it gives back what it has offloaded once",
}

# What asks for one forward pass, and what does without.
_Key = tuple[str, str | bool]
_PASSES: _Key = ("pcr.passes", "shared_forward")
_GROUP: _Key = ("pcr.zero_advantage", "group")
_COMBINE: _Key = ("pcr.combine_signals", True)
_INSTEAD = {
    _PASSES: "pcr.passes=auto or two_forward",
    _GROUP: "pcr.zero_advantage=skip",
    _COMBINE: "pcr.combine_signals=false",
}

# A parameter of one expert, where experts are not in one tensor.
_ONE = re.compile(r"(^|\.)experts\.\d+\.")


def check_engine_shares(engine: Any, rule: UpdateRule) -> None:
    """Refuse what needs one forward pass on an engine that is not shown to be right with it.

    Args:
        engine: veRL's engine configuration of a covered backend.
        rule: the resolved rule.

    Raises:
        ValueError: names key, value and remedy.
    """
    _refuse(_engine_against(engine), rule)


def check_model_shares(model: Any, rule: UpdateRule) -> None:
    """Refuse what needs one forward pass with a model that is not shown to be right with it.

    Args:
        model: veRL's model configuration, as dataclass or mapping.
        rule: the resolved rule.

    Raises:
        ValueError: names key, value and remedy.
    """
    _refuse(_model_against(model), rule)


def reason_against(engine: Any, model: Any, module: nn.Module, rule: UpdateRule) -> str:
    """Why a step has two forward passes, on the worker that is about to train.

    Args:
        engine: veRL's engine configuration.
        model: veRL's model configuration.
        module: the model.
        rule: the resolved rule.

    Returns:
        The reason, empty where one forward pass is enough.

    Raises:
        ValueError: there is one, and something was asked for that needs one forward pass.
    """
    if rule.settings.passes == "two_forward":
        return "as set"
    found = (
        _engine_against(engine)
        or _model_against(model)
        or _module_against(module)
        or _device_against()
    )
    _refuse(found, rule)
    return found


def _engine_against(engine: Any) -> str:
    strategy = str(engine.strategy).rpartition(":")[2]
    if strategy != "fsdp2":
        return f"actor_rollout_ref.actor.strategy={strategy}, and it is shown for fsdp2"
    return ""


def _model_against(model: Any) -> str:
    for key, why in _MODEL.items():
        if model.get(key, False):
            return f"actor_rollout_ref.model.{key}=True, and {why}"
    return ""


def _module_against(module: nn.Module) -> str:
    """Ranks reduce after every micro-batch, so each must reach the same parameters in it."""
    sparse = next(
        (n for n, p in module.named_parameters() if p.requires_grad and _ONE.search(n)), ""
    )
    if sparse:
        return f"an expert is a module of its own ({sparse}), which micro-batches may not reach"
    if getattr(getattr(module, "config", None), "layerdrop", 0.0):
        return "layerdrop lets ranks leave out different layers"
    return ""


def _device_against() -> str:
    device = host.name("verl.utils.device", "get_device_name")()
    if device not in ("cpu", "cuda"):
        return f"the device is {device!r}, and it is meant for none but cpu and cuda"
    return ""


def _refuse(found: str, rule: UpdateRule) -> None:
    asking = _asking(rule)
    if found and asking:
        reject(*asking, f"it needs one forward pass, but {found}; use {_INSTEAD[asking]}")


def _asking(rule: UpdateRule) -> _Key | None:
    """Key and value that cannot be had without one forward pass, if there is one."""
    settings = rule.settings
    if settings.passes == "shared_forward":
        return _PASSES
    if settings.zero_advantage == "group":
        return _GROUP
    return _COMBINE if settings.combine_signals else None
