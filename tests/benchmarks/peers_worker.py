"""Gradients of the peers before clipping. `python -m ... <rank> <ranks> <folder>`."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from verl.workers.utils.losses import ppo_loss

from benchmarks.layouts import VARIANTS
from benchmarks.patching import replaced
from benchmarks.update import Update, actor_config, make_update
from benchmarks.workload import Workload, make_batch, save_model
from pcr_plugin.verl.losses import SplitLoss

WORKLOAD = Workload(
    width=32, layers=2, vocabulary=64, sequences=4, prompt=4, response=8, micro_batches=2
)


def main(folder: Path) -> None:
    """Save the gradient of every peer, of stock, and of the two losses alone.

    Args:
        folder: for the rendezvous and the results.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    found = {}
    half = replace(WORKLOAD, precision="bf16")
    with tempfile.TemporaryDirectory() as model:
        save_model(WORKLOAD, Path(model))
        for name, variant in VARIANTS.items():
            if name == "stock" or "MLPs only" in name or variant.peer:
                update = make_update(WORKLOAD, Path(model), variant)
                found[name] = _gradient(update, partial(update, make_batch(WORKLOAD, seed=0)))
        for name in ("stock", "plain torch"):
            update = make_update(half, Path(model), VARIANTS[name])
            train = partial(update, make_batch(half, seed=0))
            found[f"{name}, bf16"] = _gradient(update, train)
        plain = make_update(WORKLOAD, Path(model), VARIANTS["plain torch"])
    actor = actor_config(WORKLOAD, VARIANTS["stock"])
    split = SplitLoss(partial(ppo_loss, config=actor), lambda _: None)
    for name, loss in (("p", split.plasticity()), ("s", split.stability())):
        train = partial(plain.engine.train_batch, make_batch(WORKLOAD, seed=0), loss)
        found[name] = _gradient(plain, train)
    torch.save(found, folder / "gradients.pt")
    dist.destroy_process_group()


def _gradient(update: Update, run: Callable[[], Any]) -> dict[str, Tensor]:
    """What the optimizer would step with; it does not, so that all start from one model."""
    gradient: dict[str, Tensor] = {}

    def reading(_: Any) -> Callable[[], float]:
        def optimizer_step() -> float:
            for name, parameter in update.engine.module.named_parameters():
                grad = parameter.grad
                gradient[name] = getattr(grad, "full_tensor", lambda grad=grad: grad)().clone()
            return 0.0

        return optimizer_step

    with replaced(update.engine, "optimizer_step", reading):
        run()
    update.engine.optimizer_zero_grad()
    return gradient


if __name__ == "__main__":
    main(Path(sys.argv[3]))
