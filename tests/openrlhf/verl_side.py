"""One rank of veRL on FSDP2, with the micro-batches that OpenRLHF has trained on.

`python -m tests.openrlhf.verl_side <rank> <ranks> <folder>`, in veRL's environment. The folder has
the rows of every rank, in order; the inputs are beside it.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe
from tests.oracle.objective import Objective

ROWS = "rows.json"
# Model, batch, rows in a micro-batch, beta and losses of the case `zero2-pcr` in `cases`.
CASE = Case(recipe=Recipe(name="as_openrlhf", objective=Objective(kl="k2")), variant="paper")


def main(rank: int, ranks: int, folder: Path) -> None:
    """Make the step and save the record.

    Args:
        rank: of this process.
        ranks: number of processes.
        folder: with the rows; for the rendezvous and the record.
    """
    from tests.distributed.running import run_case

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    inputs = Inputs.load(folder.parent)
    rows: list[list[int]] = json.loads((folder / ROWS).read_text())
    # A rank trains on its part of the batch from the first row to the last.
    (name,) = CASE.recipe.batches
    inputs.batches[name] = [inputs.batches[name][row] for of_rank in rows for row in of_rank]
    torch.save(run_case(CASE, inputs), folder / f"record{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
