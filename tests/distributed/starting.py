"""One rank of engines that should not start. `python -m ... <rank> <ranks> <folder>`."""

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import OPTConfig, OPTForCausalLM

from benchmarks.layouts import Variant
from benchmarks.update import make_update
from benchmarks.workload import Workload, save_model
from pcr_plugin import version
from pcr_plugin.fingerprint import this_copy
from pcr_plugin.verl import releases
from tests.support.copying import copy_source

PACKAGE = Path(releases.__file__).parents[1]
TINY = Workload(width=32, layers=1, vocabulary=64, sequences=2, prompt=4, response=8)


def save_qwen(folder: Path) -> None:
    """A model that a rule can train."""
    save_model(TINY, folder)


def save_opt(folder: Path) -> None:
    """A model whose layers have `fc1` and `fc2`, and no module for the two."""
    save_qwen(folder)
    OPTForCausalLM(
        OPTConfig(
            vocab_size=TINY.vocabulary,
            hidden_size=TINY.width,
            word_embed_proj_dim=TINY.width,
            ffn_dim=TINY.width,
            num_hidden_layers=TINY.layers,
            num_attention_heads=2,
            num_key_value_heads=2,  # veRL asks every model for it
            max_position_embeddings=32,
        )
    ).save_pretrained(folder)


def built(save: Callable[[Path], object] = save_qwen) -> str:
    """What building the engine ends with.

    Args:
        save: writes the model.
    """
    with tempfile.TemporaryDirectory() as model:
        save(Path(model))
        try:
            make_update(TINY, Path(model), Variant(rule="pcr"))
        except (RuntimeError, ValueError) as error:
            return str(error)
    return "built"


def main(rank: int, ranks: int, folder: Path) -> None:
    """Build an engine on ranks that agree, where the last one has another copy, and of OPT.

    Args:
        rank: of this process.
        ranks: number of processes.
        folder: for the rendezvous and what was said.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    last = rank == ranks - 1
    said = {"alike": built()}
    usual, version.__version__ = version.__version__, "0.0.9" if last else version.__version__
    said["older"] = built()
    version.__version__ = usual
    if last:
        changed = folder / "pcr_plugin"
        copy_source(PACKAGE, changed)
        (changed / "update.py").write_text((changed / "update.py").read_text() + "# mine\n")
        releases.this_copy = partial(this_copy, changed)
    said["changed"] = built()
    releases.this_copy = this_copy
    said["opt"] = built(save_opt)
    (folder / f"{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
