"""What `pcr.log_blocks` logs: cosine, alpha and effective beta of every block."""

import re
from collections.abc import Sequence

from pcr_plugin.plots.logs.log import Log
from pcr_plugin.plots.tables.curves import Curve, curve

_BLOCK = re.compile(r"actor/pcr/block/(?P<block>.+)/(?P<number>cos|alpha|beta_eff)")
# The names that `pcr_plugin.blocks.scopes` knows.
_KINDS = {
    "MLP": re.compile(r"\b(mlp|feed_forward|ffn|block_sparse_moe)\b"),
    "attention": re.compile(r"\b(self_attn|self_attention|attention|attn|linear_attn)\b"),
}
OTHER = "other"


def blocks_with(logs: Sequence[Log], number: str) -> list[str]:
    """Blocks that have a number at any step, by kind and layer."""
    keys: set[str] = set().union(*(log.metrics() for log in logs))
    found = [match for match in map(_BLOCK.fullmatch, keys) if match and match["number"] == number]
    return sorted((match["block"] for match in found), key=_order)


def block_curves(logs: Sequence[Log], number: str) -> dict[str, Curve]:
    """Block to its number over steps, mean over seeds."""
    curves = {
        block: curve(logs, f"actor/pcr/block/{block}/{number}")
        for block in blocks_with(logs, number)
    }
    return {block: found for block, found in curves.items() if found is not None}


def values_by_kind(logs: Sequence[Log], number: str) -> dict[str, list[float]]:
    """All values of all layers, steps and seeds, by kind of module."""
    values: dict[str, list[float]] = {}
    for block in blocks_with(logs, number):
        for log in logs:
            found = log.finite(f"actor/pcr/block/{block}/{number}").values()
            values.setdefault(kind_of(block), []).extend(found)
    return values


def kind_of(block: str) -> str:
    """`MLP`, `attention` or `other`, from a name like `3.mlp`."""
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(block)), OTHER)


def _order(block: str) -> tuple[str, int, str]:
    layer = re.match(r"\d+", block)
    return kind_of(block), int(layer[0]) if layer else -1, block
