"""Every name of veRL that the update is built on, in one place.

A veRL that moved one of them must stop the run with a message that says what to do, and not with
an AttributeError in the middle of training.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# module -> names
_NEEDED: dict[str, tuple[str, ...]] = {
    "verl.trainer.ppo.core_algos": ("register_policy_loss", "get_policy_loss_fn"),
    "verl.utils.device": ("get_device_id", "get_device_name", "get_torch_device"),
    "verl.utils.metric": ("AggregationType", "Metric"),
    "verl.utils.py_functional": ("append_to_dict",),
    "verl.utils.tensordict_utils": (
        "assign_non_tensor",
        "get_non_tensor_data",
        "index_select_tensor_dict",
    ),
    "verl.workers.engine.base": ("BaseEngine", "EngineRegistry"),
    "verl.workers.engine.fsdp.transformer_impl": ("FSDPEngine", "logprobs_from_logits"),
    "verl.workers.utils.losses": ("ppo_loss",),
}


def verl_version() -> str:
    """The installed veRL's version, `unknown` for a source tree without metadata."""
    try:
        return version("verl")
    except PackageNotFoundError:
        return "unknown"


def unsupported(what: str, error: Exception) -> ImportError:
    """The error for a veRL that lacks something, or for a plugin that does not fit it.

    Args:
        what: what is missing.
        error: how it was noticed.

    Returns:
        An error to raise, with the remedy.
    """
    return ImportError(
        f"pcr-plugin cannot work with veRL {verl_version()}: {what} ({error}). Install a fitting "
        'pair, for example `pip install -U pcr-plugin "verl>=0.9,<0.10"`, in the environment of '
        "the driver and of every worker; `pcr doctor` checks it. Without the plugin the run must "
        "not go on: it would train plain GRPO."
    )


def name(module: str, attribute: str) -> Any:
    """A name of veRL.

    Args:
        module: one of the modules listed in this file.
        attribute: one of its names listed here.

    Raises:
        ImportError: the installed veRL does not have it; says which versions do.
    """
    assert attribute in _NEEDED[module], "list it here, so that `pcr doctor` checks it"
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise unsupported(f"{module}.{attribute} is missing", error) from error


def check_all() -> None:
    """Look every name up.

    Raises:
        ImportError: one is missing.
    """
    for module, names in _NEEDED.items():
        for attribute in names:
            name(module, attribute)
