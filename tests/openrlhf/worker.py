"""One rank: every case for this number of ranks. `python -m ... <rank> <ranks> <folder> <names>`.

Runs in the environment of `make install-openrlhf`.
"""

import gc
import os
import sys
from pathlib import Path
from typing import Any

from tests.openrlhf import cpu


def main(rank: int, ranks: int, folder: Path, chosen: str) -> None:
    """Run the cases and save the records.

    Args:
        rank: of this process.
        ranks: number of processes.
        folder: for the rendezvous and the records; the inputs are beside it.
        chosen: a regular expression that the names of the cases match.
    """
    # DeepSpeed looks for them although the group is there already.
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(ranks))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    cpu.prepare()
    import re

    import torch
    import torch.distributed as dist

    from tests.distributed.inputs import Inputs
    from tests.openrlhf import resuming
    from tests.openrlhf.cases import CASES, MISTAKES, RESUMED
    from tests.openrlhf.mistakes import mistakes
    from tests.openrlhf.running import run_case
    from tests.support import shared_gloo

    # What the imports have left stays, and every case makes groups of its own.
    gc.freeze()
    shared_gloo.install()
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    inputs = Inputs.load(folder.parent)
    records: dict[str, Any] = {}
    if ranks == 2:
        records[MISTAKES] = mistakes(inputs)
    for case in CASES:
        if ranks in case.ranks and re.search(chosen, case.name):
            print("case", case.name, flush=True)
            records[case.name] = run_case(case, inputs)
    for stage in RESUMED:
        if ranks == 2 and re.search(chosen, f"resumed{stage}"):
            print("resuming", stage, flush=True)
            records |= resuming.run(stage, inputs, folder)
    torch.save(records, folder / f"records{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
