"""Every name of veRL that the update is built on, and its releases, in one place.

A veRL that moved one of them must stop the run with a message that says what to do, and not with
an AttributeError in the middle of training.
"""

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

logger = logging.getLogger(__name__)

# The series whose engine and loss the update is built on, and its releases that have been tried:
# docs/compatibility.md says how.
SERIES = "0.9"
TRIED = ("0.9.0", "0.9.1")
# Of Megatron-core, whose gradient buffers and hooks the Megatron engine's update is built on.
TRIED_MEGATRON_CORE = ("0.16.1",)

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


class Unsupported(ImportError):
    """A veRL that the update cannot work with; the message has the remedy."""


def verl_version() -> str:
    """The installed veRL's version, `unknown` for a source tree without metadata."""
    try:
        return version("verl")
    except PackageNotFoundError:
        return "unknown"


def another_series() -> str | None:
    """What is wrong with the installed veRL's version.

    Returns:
        A sentence with the remedy, or `None` if it is of our series, or has no metadata.
    """
    found = verl_version()
    if found == "unknown" or ".".join(found.split(".")[:2]) == SERIES:
        return None
    return (
        f"pcr-plugin supports veRL {SERIES}.x, but {found} is installed. A run with update_rule "
        'is refused; install a fitting pair, for example `pip install "verl>=0.9,<0.10"`.'
    )


def not_tried() -> str | None:
    """What to know of a release of our series, or of a source tree, that has not been tried.

    Returns:
        A sentence, or `None`.
    """
    found = verl_version()
    if found in TRIED:
        return None
    return (
        f"veRL {found} has not been tried with this pcr-plugin (tried: {', '.join(TRIED)}). Every "
        "name that the update is built on is looked up before a run; run `pcr doctor`, and compare "
        "the first steps of update_rule=sum with those of update_rule=null."
    )


def check_version() -> None:
    """Refuse another series of veRL; say so where a release has not been tried.

    Raises:
        ImportError: with the remedy.
    """
    problem = another_series()
    if problem:
        raise Unsupported(problem)
    notice = not_tried()
    if notice:
        logger.warning("pcr-plugin: %s", notice)


def check_megatron_core() -> None:
    """Say so where the installed Megatron-core has not been tried."""
    try:
        found = version("megatron-core")
    except PackageNotFoundError:
        found = "unknown"
    if found not in TRIED_MEGATRON_CORE:
        logger.warning(
            "pcr-plugin: Megatron-core %s has not been tried (tried: %s); compare the first steps "
            "of update_rule=sum with those of update_rule=null",
            found,
            ", ".join(TRIED_MEGATRON_CORE),
        )


def unsupported(what: str, error: Exception) -> Unsupported:
    """The error for a veRL that lacks something, or for a plugin that does not fit it.

    Args:
        what: what is missing.
        error: how it was noticed.

    Returns:
        An error to raise, with the remedy.
    """
    return Unsupported(
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
