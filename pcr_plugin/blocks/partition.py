"""From parameter names to blocks."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pcr_plugin.blocks.scopes import ATTENTION_OF_LAYER, MLP_OF_LAYER, in_scope, plain_name

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(?P<number>\d+)\.(?P<part>.+)$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Parameters that share one inner product and one alpha.

    Args:
        name: the module or tensor, without wrappers; unique, stable between runs.
        parameters: names of the parameters as the model spells them.
    """

    name: str
    parameters: tuple[str, ...]

    @property
    def members(self) -> str:
        """A digest of the parameters' names: the name of the block does not tell which it has."""
        names = sorted(map(plain_name, self.parameters))
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """`<layer>.<part>`, as in metric names: `3.mlp` for `model.layers.3.mlp`."""
        layer = _LAYER.search(self.name)
        return f"{layer['number']}.{layer['part']}" if layer else self.name


def partition(
    names: Iterable[str], scope: str | tuple[str, ...], block: str = "module"
) -> tuple[Block, ...]:
    """Group the parameters in the scope into blocks.

    Args:
        names: the trainable parameters' names, in the model's order. With several ranks each
            must pass all names, so that all have the same blocks.
        scope: see `pcr_plugin.blocks.in_scope`.
        block: `module`: a decoder layer's MLP (with all its experts) or attention, and for
            other parameters those that share the parent module; `tensor`: each by itself;
            `global`: all together.

    Returns:
        The blocks in the order of their first parameter.

    Raises:
        ValueError: the scope matches no parameter; the message lists the names.
    """
    everything = list(names)
    groups: dict[str, list[str]] = {}
    for name in everything:
        plain = plain_name(name)
        if in_scope(plain, scope):
            groups.setdefault(_block_name(plain, block), []).append(name)
    if not groups:
        # A name per kind: a model of experts has thousands.
        kinds = dict.fromkeys(re.sub(r"\b\d+\b", "N", name) for name in everything)
        seen = ", ".join(kinds) or "none"
        raise ValueError(f"pcr.scope={scope!r} matches no trainable parameter; they are: {seen}")
    return tuple(Block(name=name, parameters=tuple(group)) for name, group in groups.items())


def _block_name(name: str, block: str) -> str:
    if block == "global":
        return "all"
    if block == "tensor":
        return name
    for layer in (MLP_OF_LAYER, ATTENTION_OF_LAYER):
        if inside := layer.match(name):
            return inside["module"]
    # `model.norm.weight` is the tensor of the module `model.norm`, whose parent is `model`.
    parents = name.rsplit(".", 2)
    return parents[0] if len(parents) == 3 else name
