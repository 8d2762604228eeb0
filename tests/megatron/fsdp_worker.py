"""One process with veRL's FSDP2 engine on the same model and rows as the Megatron cases.

`python -m tests.megatron.fsdp_worker 0 1 <folder>`; without the shims for Megatron-core.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.running import run_case
from tests.megatron.cases import PLAIN

CASE = Case(recipe=PLAIN, variant="paper", ranks=(1,))


def main(folder: Path) -> None:
    """Run the case and save its record.

    Args:
        folder: with `inputs.pt` beside it; for the rendezvous and the record.
    """
    torch.set_num_threads(1)
    inputs = Inputs.load(folder.parent)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    try:
        torch.save(run_case(CASE, inputs), folder / "record.pt")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[3]))
