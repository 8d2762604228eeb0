"""The same for veRL's Megatron engine, in a program of its own.

    VERL_PLATFORM=cpu python -m benchmarks.megatron_update --out docs

Megatron-core needs a GPU; here it runs with what the tests put in its place on a CPU, which changes
torch for the whole process. Under `torchrun` all ranks share the matrices of one model.
"""

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist
from verl.workers.config import HFModelConfig, McoreOptimizerConfig

from benchmarks.actor_update import PACKAGES, parser, run
from benchmarks.layouts import LAYOUTS, PASSES, RULES, Layout, Variant
from benchmarks.machine import start_ranks
from benchmarks.update import Update, new_engine
from benchmarks.workload import Workload
from tests.support import megatron_cpu, megatron_verl_cpu


def make_update(workload: Workload, model: Path, variant: Variant) -> Update:
    """One actor update of the Megatron engine, as `benchmarks.update` makes one with FSDP.

    Args:
        workload: the model's size.
        model: the saved checkpoint.
        variant: which.

    Raises:
        ValueError: what the installed code refuses.
    """
    actor = _actor(workload, variant)
    engine = new_engine(
        actor,
        model_config=HFModelConfig(path=str(model), use_remove_padding=False),
        optimizer_config=McoreOptimizerConfig(
            lr=1e-6, lr_decay_style="constant", total_training_steps=1000
        ),
    )
    return Update(engine, actor)


def _actor(workload: Workload, variant: Variant) -> Any:
    from pcr_plugin.verl import enable
    from tests.support.megatron_engine import actor_config
    from tests.support.megatron_layout import Layout as Grid

    replicas = dist.get_world_size() // workload.tensor_ranks
    actor = actor_config(
        layout=Grid(
            name="measured",
            tensor=workload.tensor_ranks,
            data=replicas,
            distributed_optimizer=True,
        ),
        engine={},
        ppo_mini_batch_size=workload.sequences * replicas,
        ppo_micro_batch_size_per_gpu=workload.sequences // workload.micro_batches,
        kl_loss_coef=0.01,
        kl_loss_type="k3+",
    )
    if variant.rule is not None:
        enable(actor, variant.rule, **variant.settings)
    return actor


def main() -> None:
    """Parse the command line, measure, write."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    changes = {"strategy": "megatron", "tensor_ranks": ranks}
    layouts = {
        "megatron-passes": Layout(
            changes={**LAYOUTS["passes"].changes, **changes},
            variants=PASSES,
            ranks=(1, 2, 4),
            parts=True,
        ),
        "megatron": Layout(changes=changes, variants=RULES, ranks=(1,)),
    }
    given = parser(layouts, name="benchmarks_megatron").parse_args()
    megatron_cpu.install()
    megatron_verl_cpu.install()
    command = start_ranks("benchmarks.megatron_update")
    run(given, command, layouts, make_update, (*PACKAGES, "megatron-core", "mbridge"))


if __name__ == "__main__":
    main()
