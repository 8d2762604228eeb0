"""One rank: runs a share of the cases. `python -m ... <rank> <ranks> <folder> <share>`."""

import gc
import importlib
import logging
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from tests.distributed.inputs import Inputs
from tests.megatron.mistakes import mistake_of
from tests.megatron.records import MegatronRecord
from tests.megatron.shares import PRELOADED, shares

logger = logging.getLogger(__name__)


def main(rank: int, ranks: int, folder: Path, share: int) -> None:
    """Run a share of the cases and save the records.

    Args:
        rank: of this process.
        ranks: number of processes.
        folder: two levels below `inputs.pt`; for the rendezvous and the records.
        share: which cases, see `tests.megatron.shares`.
    """
    importlib.import_module(PRELOADED)
    from tests.megatron.running import run_case
    from tests.megatron.scenarios import SCENARIOS
    from tests.support import shared_gloo

    gc.freeze()
    shared_gloo.install()
    torch.set_num_threads(1)
    inputs = Inputs.load(folder.parents[1])
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    try:
        records: dict[str, MegatronRecord] = {}
        for case in shares(ranks)[share]:
            start = time.monotonic()
            with mistake_of(case):
                records[case.name] = run_case(case, inputs)
            logger.warning("case %s: %.1f seconds", case.name, time.monotonic() - start)
        if share == len(shares(ranks)) - 1:
            records |= {
                name: scenario(inputs)
                for name, (scenario, needed) in SCENARIOS.items()
                if ranks == needed
            }
        torch.save(records, folder / f"records{rank}.pt")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
