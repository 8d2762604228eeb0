"""The scope's linear layers of a Hugging Face model under FSDP, for the estimator `sequence`."""

import re
from collections.abc import Sequence

from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from pcr_plugin.config.checks import refuse_unread
from pcr_plugin.gradients import LinearLayer, find_linear_layers

# FSDP1's names have its wrappers in them; directions must not depend on the wrapping.
_WRAPPER = re.compile(r"_fsdp_wrapped_module\.")


def linear_layers(module: nn.Module, names: Sequence[str]) -> list[LinearLayer]:
    """Find the modules that own the parameters of the scope.

    Args:
        module: the model, wrapped by FSDP or not.
        names: in-scope parameters in the host's order.

    Raises:
        ValueError: a parameter is not one of a linear layer that gets all tokens.
    """
    found = find_linear_layers(
        module, names, inside=_inside, whole_name=lambda name: _WRAPPER.sub("", name)
    )
    refuse_unread(found.unread)
    return found.layers


def _inside(module: nn.Module) -> nn.Module:
    """FSDP1 may wrap a layer by itself, as it does with adapters."""
    return module.module if isinstance(module, FullyShardedDataParallel) else module
