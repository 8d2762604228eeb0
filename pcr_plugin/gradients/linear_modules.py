"""The scope's linear layers of a Hugging Face model, whatever shards its weights."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from pcr_plugin.gradients.linear_layers import LinearLayer, Side

_FIELDS = ("weight", "bias")
_EXPERTS = "experts"


class Found(NamedTuple):
    """What was found of the scope.

    Attributes:
        layers: modules that own its parameters.
        unread: parameters whose gradient is not that of a linear layer that gets every token.
    """

    layers: list[LinearLayer]
    unread: list[str]


def find_linear_layers(
    module: nn.Module,
    names: Sequence[str],
    *,
    inside: Callable[[nn.Module], nn.Module] = lambda owner: owner,
    whole_name: Callable[[str], str] = lambda name: name,
) -> Found:
    """Find the modules that own the parameters of the scope.

    Args:
        module: the model.
        names: in-scope parameters in the host's order.
        inside: from what stands at a name to the module that is called.
        whole_name: from a module's name here to that in the model as it is without wrappers.
    """
    members: dict[str, dict[str, int]] = {}
    for index, name in enumerate(names):
        owner, _, attribute = name.rpartition(".")
        members.setdefault(owner, {})[attribute] = index
    times = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    owners = {owner: inside(module.get_submodule(owner)) for owner in members}
    unread = [
        f"{owner}.{attribute}"
        for owner, attributes in members.items()
        for attribute in attributes
        if not _is_read(owner, owners[owner], attribute)
        or times[id(getattr(owners[owner], attribute, None))] > 1
    ]
    if unread:
        return Found([], unread)
    layers = [_layer(whole_name(o), owners[o], indices) for o, indices in members.items()]
    return Found(layers, [])


def _is_read(owner: str, module: nn.Module, attribute: str) -> bool:
    """An expert gets some of the tokens, in an order of its own."""
    is_linear = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    return is_linear and attribute in _FIELDS and _EXPERTS not in owner.split(".")


def _layer(name: str, module: nn.Module, indices: dict[str, int]) -> LinearLayer:
    assert isinstance(module, nn.Linear)
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
