"""One actor update of veRL's real engine, as its worker runs it, without Ray."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from verl.trainer.config import CheckpointConfig
from verl.utils.device import get_device_name
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
)
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

from benchmarks.layouts import Variant
from benchmarks.workload import Workload, has_kernel, packed
from pcr_plugin.verl import enable
from tests.support import packed_attention

# Every run of `main_ppo` reduces in every micro-batch; the class itself would defer.
_OF_A_RUN = {"use_no_sync_for_gradient_accumulation": False}


class Update:
    """Zero, passes, clip, step of an engine that is ready.

    Args:
        engine: of veRL, or built on one.
        actor: the actor's configuration, which the loss reads.
    """

    def __init__(self, engine: Any, actor: Any) -> None:
        self.engine = engine
        self._loss = partial(ppo_loss, config=actor)

    def __call__(self, batch: TensorDict) -> dict[str, Any]:
        """Train on a mini-batch; returns what the engine does."""
        with self.engine.train_mode():
            output: dict[str, Any] = self.engine.train_batch(batch, self._loss)
        return output

    def come(self) -> None:
        """Back to the device, where another update has been."""
        if get_device_name() != "cpu":
            self.engine.to(get_device_name())

    def go(self) -> None:
        """Leave the device to another update: all of them together need not fit."""
        if get_device_name() != "cpu":
            self.engine.to("cpu")


def make_update(workload: Workload, model: Path, variant: Variant) -> Update:
    """The update of an FSDP engine, or of a peer.

    Args:
        workload: the model's size and the layout.
        model: the saved checkpoint.
        variant: which.

    Raises:
        ValueError: what the installed code refuses.
    """
    actor = actor_config(workload, variant)
    if workload.sequence_ranks > 1 and not has_kernel():
        packed_attention.install()  # what the tests put in place of the kernel
    parts = {
        "model_config": model_config(workload, model),
        "optimizer_config": FSDPOptimizerConfig(lr=1e-6, total_training_steps=1000),
    }
    if variant.peer:
        from benchmarks.peers import new_peer

        return Update(new_peer(variant.peer, actor, **parts), actor)
    return Update(new_engine(actor, **parts), actor)


def new_engine(actor: Any, **parts: Any) -> Any:
    """The engine that the actor's configuration names.

    Args:
        actor: the actor's configuration.
        parts: `model_config` and `optimizer_config`.
    """
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor.engine.strategy,
        engine_config=actor.engine,
        checkpoint_config=CheckpointConfig(),
        **parts,
    )
    engine.initialize()
    return engine


def model_config(workload: Workload, model: Path) -> HFModelConfig:
    """The model as veRL loads it.

    Args:
        workload: its attention, checkpointing and adapters.
        model: the saved checkpoint.
    """
    return HFModelConfig(
        path=str(model),
        use_remove_padding=packed(workload),
        override_config={"attn_implementation": attention(workload)},
        enable_gradient_checkpointing=workload.checkpointing,
        lora_rank=workload.lora_rank,
        lora_alpha=2 * workload.lora_rank,
    )


def attention(workload: Workload) -> str:
    """How the model computes attention.

    Args:
        workload: without padding it needs a kernel, or what stands for it.
    """
    if has_kernel():
        return "flash_attention_2"
    return packed_attention.PACKED if packed(workload) else "sdpa"


def actor_config(workload: Workload, variant: Variant) -> FSDPActorConfig:
    """The actor's configuration for FSDP.

    Args:
        workload: the layout and the mini-batch.
        variant: the rule, if there is one.

    Raises:
        ValueError: what the installed code refuses.
    """
    precision = {"param_dtype": workload.precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    fsdp = FSDPEngineConfig(
        strategy=workload.strategy,
        fsdp_size=workload.fsdp_size,
        ulysses_sequence_parallel_size=workload.sequence_ranks,
        mixed_precision=precision,
        use_torch_compile=False,
        **{**_OF_A_RUN, **dict(workload.engine)},
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
    if variant.rule is not None:
        enable(actor, variant.rule, **variant.settings)
    return actor
