"""One rank: runs every case for this number of ranks. `python -m ... <rank> <ranks> <folder>`."""

import gc
import logging
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.distributed.cases import CASES
from tests.distributed.inputs import Inputs
from tests.distributed.records import CaseRecord

logger = logging.getLogger(__name__)


def main(rank: int, ranks: int, folder: Path) -> None:
    """Run the cases and save the records.

    Args:
        rank: of this process.
        ranks: number of processes.
        folder: with `inputs.pt` beside it; for the rendezvous and the records.
    """
    import tests.support.module_list_moe  # noqa: F401 -- registers the model type
    from tests.distributed.running import run_case
    from tests.distributed.scenarios import SCENARIOS
    from tests.support import packed_attention, shared_gloo

    # What the imports have left stays; collecting it again after every case would take longer than
    # the cases.
    gc.freeze()
    shared_gloo.install()
    torch.set_num_threads(1)
    packed_attention.install()
    inputs = Inputs.load(folder.parent)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    try:
        records: dict[str, CaseRecord] = {}
        for case in CASES:
            if ranks in case.ranks:
                logger.warning("case %s", case.name)
                records[case.name] = run_case(case, inputs)
        for name, (scenario, needed) in SCENARIOS.items():
            if ranks in needed:
                logger.warning("scenario %s", name)
                records[name] = scenario(inputs, folder)
        torch.save(records, folder / f"records{rank}.pt")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
