"""All ranks run one copy of this package: an older one on one node could compute otherwise."""

import json
import socket
from typing import Any

from pcr_plugin.distributed import gather_lists, rank_in
from pcr_plugin.fingerprint import this_copy

# Ranks named per copy: enough to find the node, on any number of them.
_NAMED = 4


def check_releases(group: Any) -> None:
    """Refuse to train with several copies of the package.

    Args:
        group: process group of the ranks of one model.

    Raises:
        RuntimeError: on every rank, with what was found on which ranks of which nodes.
    """
    mine = [this_copy(), f"rank {rank_in(group)} on {socket.gethostname()}"]
    places: dict[str, list[str]] = {}
    for entry in gather_lists([json.dumps(mine)], group):
        copy, place = json.loads(entry)
        places.setdefault(copy, []).append(place)
    if len(places) == 1:
        return
    # The node that is unlike the others comes first.
    found = [
        _described(copy, places[copy]) for copy in sorted(places, key=lambda c: len(places[c]))
    ]
    raise RuntimeError(
        f"The actor's workers have different copies of pcr-plugin: {'; '.join(found)}. "
        "Install the same one on every node, or give Ray's runtime_env the one to use; "
        "`pcr doctor` shows a node's."
    )


def _described(copy: str, places: list[str]) -> str:
    more = len(places) - _NAMED
    return f"{copy} ({', '.join(places[:_NAMED])}{f' and {more} more' if more > 0 else ''})"
