"""The scope's linear layers of a Hugging Face model, for the estimator `sequence`."""

import re
from collections import Counter
from collections.abc import Sequence

from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from pcr_plugin.config.checks import reject
from pcr_plugin.gradients import LinearLayer, Side

_FIELDS = ("weight", "bias")
# FSDP1's names have its wrappers in them; directions must not depend on the wrapping.
_WRAPPER = re.compile(r"_fsdp_wrapped_module\.")
_EXPERTS = re.compile(r"\bexperts\b")


def linear_layers(module: nn.Module, names: Sequence[str]) -> list[LinearLayer]:
    """Find the modules that own the parameters of the scope.

    Args:
        module: the model, wrapped by FSDP or not.
        names: in-scope parameters in the host's order.

    Raises:
        ValueError: a parameter is not one of a linear layer that gets all tokens.
    """
    members: dict[str, dict[str, int]] = {}
    for index, name in enumerate(names):
        owner, _, attribute = name.rpartition(".")
        members.setdefault(owner, {})[attribute] = index
    times = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    owners = {owner: _inside(module.get_submodule(owner)) for owner in members}
    refuse_unread(
        [
            f"{owner}.{attribute}"
            for owner, attributes in members.items()
            for attribute in attributes
            if not _is_read(owner, owners[owner], attribute)
            or times[id(getattr(owners[owner], attribute, None))] > 1
        ]
    )
    return [_layer(owner, owners[owner], members[owner]) for owner in members]


def refuse_unread(names: Sequence[str]) -> None:
    """Refuse parameters whose gradients the probes do not read.

    Args:
        names: of these parameters, the same on every rank.

    Raises:
        ValueError: there is one.
    """
    if names:
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        reject(
            "pcr.variance.estimator",
            "sequence",
            "it reads linear layers that get every token, with weights of their own, and the scope "
            f"has {shown}; narrow pcr.scope, or use split_half or micro_batch",
        )


def _inside(module: nn.Module) -> nn.Module:
    """FSDP1 may wrap a layer by itself, as it does with adapters."""
    return module.module if isinstance(module, FullyShardedDataParallel) else module


def _is_read(owner: str, module: nn.Module, attribute: str) -> bool:
    """An expert gets some of the tokens, in an order of its own."""
    is_linear = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    return is_linear and attribute in _FIELDS and not _EXPERTS.search(owner)


def _layer(owner: str, module: nn.Module, indices: dict[str, int]) -> LinearLayer:
    assert isinstance(module, nn.Linear)
    name = _WRAPPER.sub("", owner)
    return LinearLayer(
        module=module,
        name=name,
        # Gate and up, or query, key and value, have one input.
        reads=f"{name.rpartition('.')[0]} {module.in_features}",
        inputs=Side(width=module.in_features),
        outputs=Side(width=module.out_features),
        weight=indices.get("weight"),
        bias=indices.get("bias"),
    )
