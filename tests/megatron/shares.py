"""Which cases one process runs: few enough that it stays quick.

Every engine makes process groups of its own, and what gloo starts for them (two threads each)
goes on until the process ends. With a hundred engines threads are all that a process does.
"""

from tests.distributed.variants import CONFIGURED, STOCK
from tests.megatron.auxiliary_cases import AUXILIARY_CASES, MISTAKEN_AUXILIARY
from tests.megatron.cases import CASES, MegatronCase
from tests.megatron.mistaken_cases import MISTAKEN, RIGHT
from tests.megatron.router_cases import MISTAKEN_ROUTERS, REPLAYED, ROUTER_CASES

# What every rank needs.
PRELOADED = "tests.megatron.preloaded"

_PER_PROCESS = 15
# veRL changes the routers of the whole process for the replay.
_ALL = (
    *(*CASES, *RIGHT, *MISTAKEN, *AUXILIARY_CASES, *MISTAKEN_AUXILIARY),
    *(*ROUTER_CASES, *MISTAKEN_ROUTERS, *REPLAYED),
)


def shares(ranks: int) -> list[list[MegatronCase]]:
    """All cases for a number of ranks, process by process.

    Args:
        ranks: number of processes that run a case together.
    """
    cases = [case for case in _ALL if ranks in case.ranks]
    # What `null` is compared with runs before anything of the integration is imported.
    untouched = {(c.recipe, c.layout) for c in cases if c.variant == CONFIGURED}
    cases.sort(key=lambda c: c.variant != STOCK or (c.recipe, c.layout) not in untouched)
    return [cases[first : first + _PER_PROCESS] for first in range(0, len(cases), _PER_PROCESS)]
