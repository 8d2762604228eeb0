"""How the two gradients come about (`--actor.pcr.passes`)."""

from typing import Any

from pcr_plugin.config import UpdateRule


def takes_two_forward_passes(args: Any, rule: UpdateRule) -> bool:
    """Whether every objective has forward passes of its own.

    Args:
        args: OpenRLHF's arguments.
        rule: the resolved rule.
    """
    if rule.settings.passes == "auto":
        return why_not_shared(args) is not None
    return rule.settings.passes == "two_forward"


def why_not_shared(args: Any) -> str | None:
    """Why a graph cannot be run backward twice here; `None` if it can.

    Args:
        args: OpenRLHF's arguments.
    """
    if args.ds.zero_stage == 3:
        return "ZeRO-3 frees the parameters that a second backward pass needs"
    if args.ds.use_liger_kernel:
        return "Liger's kernels overwrite what a second backward pass reads"
    return None
