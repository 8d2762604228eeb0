"""One rank with another release of the package. `python -m ... <rank> <ranks> <folder>`."""

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.layouts import Variant
from benchmarks.update import make_update
from benchmarks.workload import Workload, save_model
from pcr_plugin import version

TINY = Workload(width=32, layers=1, vocabulary=64, sequences=2, prompt=4, response=8)


def main(rank: int, ranks: int, folder: Path) -> None:
    """Build the engine on ranks that agree, then with an older copy on the last one.

    Args:
        rank: of this process.
        ranks: number of processes.
        folder: for the rendezvous and what was said.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    said = []
    for release in (version.__version__, "0.0.9" if rank == ranks - 1 else version.__version__):
        version.__version__ = release
        with tempfile.TemporaryDirectory() as model:
            save_model(TINY, Path(model))
            try:
                make_update(TINY, Path(model), Variant(rule="pcr"))
                said.append("built")
            except RuntimeError as error:
                said.append(str(error))
    (folder / f"{rank}.txt").write_text("\n".join(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
