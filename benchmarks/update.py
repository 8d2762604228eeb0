"""One actor update of veRL's real engine, as its worker runs it, without Ray."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from verl.trainer.config import CheckpointConfig
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
)
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

from benchmarks.workload import Workload
from pcr_plugin.verl import enable
from tests.support import packed_attention

Update = Callable[[TensorDict], dict[str, Any]]


def make_update(
    workload: Workload, model: Path, rule: str | None, settings: dict[str, Any]
) -> Update:
    """One actor update as veRL's worker runs it: zero, two or one passes, clip, step.

    Args:
        workload: the model's size.
        model: the saved checkpoint.
        rule: `update_rule`; `None` is veRL's stock engine class.
        settings: keys below `pcr`.

    Returns:
        A function from a mini-batch to the step's output.
    """
    actor = _actor(workload, rule, settings)
    shared = workload.sequence_ranks > 1
    if shared:  # what the tests put in place of the kernel, which needs a GPU
        packed_attention.install()
    return update_of(
        actor,
        HFModelConfig(
            path=str(model),
            use_remove_padding=shared,
            override_config={"attn_implementation": packed_attention.PACKED if shared else "sdpa"},
            enable_gradient_checkpointing=workload.checkpointing,
            lora_rank=workload.lora_rank,
            lora_alpha=2 * workload.lora_rank,
        ),
        FSDPOptimizerConfig(lr=1e-6, total_training_steps=1000),
    )


def update_of(actor: Any, model: HFModelConfig, optimizer: Any) -> Update:
    """The update of a new engine, whichever the actor's configuration names.

    Args:
        actor: the actor's configuration.
        model: the model's.
        optimizer: the optimizer's.
    """
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor.engine.strategy,
        model_config=model,
        engine_config=actor.engine,
        optimizer_config=optimizer,
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()

    def update(batch: TensorDict) -> dict[str, Any]:
        with engine.train_mode():
            output: dict[str, Any] = engine.train_batch(batch, partial(ppo_loss, config=actor))
        return output

    return update


def _actor(workload: Workload, rule: str | None, settings: dict[str, Any]) -> FSDPActorConfig:
    precision = dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")
    fsdp = FSDPEngineConfig(
        strategy=workload.strategy,
        fsdp_size=workload.fsdp_size,
        ulysses_sequence_parallel_size=workload.sequence_ranks,
        mixed_precision=precision,
        use_torch_compile=False,
        **dict(workload.engine),
    )
    replicas = torch.distributed.get_world_size() // workload.sharing_ranks
    actor = FSDPActorConfig(
        strategy=workload.strategy,
        rollout_n=1,
        ppo_mini_batch_size=workload.sequences * replicas,
        ppo_micro_batch_size_per_gpu=workload.sequences // workload.micro_batches,
        use_kl_loss=True,
        kl_loss_coef=0.01,
        kl_loss_type="k3+",
        fsdp_config=fsdp,
    )
    if rule is not None:
        enable(actor, rule, **settings)
    return actor
