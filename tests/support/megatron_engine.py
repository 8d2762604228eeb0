"""veRL's Megatron engine for a language model, built from its own configuration classes."""

import contextlib
import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from megatron.core import parallel_state
from tokenizers import Tokenizer, models
from torch.distributed import distributed_c10d
from transformers import PreTrainedTokenizerFast
from verl.trainer.config import CheckpointConfig
from verl.workers.config import (
    HFModelConfig,
    McoreActorConfig,
    McoreEngineConfig,
    McoreOptimizerConfig,
)
from verl.workers.engine import EngineRegistry

from tests.support.megatron_layout import NO_FUSION, Layout

STEPS = 10


def actor_config(
    *,
    layout: Layout,
    kind: type = McoreActorConfig,
    precision: str = "float32",
    engine: Mapping[str, Any],
    **actor: Any,
) -> Any:
    """An actor configuration.

    Args:
        layout: how the model is cut.
        kind: class of the actor's configuration.
        precision: `float32`, `bfloat16` or `float16`, of parameters and computation.
        engine: further fields of McoreEngineConfig.
        **actor: fields of the actor's configuration.
    """
    engine_config = McoreEngineConfig(
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        virtual_pipeline_model_parallel_size=layout.virtual,
        expert_model_parallel_size=layout.experts,
        expert_tensor_parallel_size=layout.expert_tensor,
        sequence_parallel=layout.sequence,
        use_distributed_optimizer=layout.distributed_optimizer,
        override_ddp_config=dict(layout.ddp),
        override_transformer_config={
            **NO_FUSION,
            # mbridge turns it on whenever there are tensor-parallel ranks and no override.
            "sequence_parallel": layout.sequence,
            # A layout is hashed, so it has tuples where the configuration has lists.
            **{k: list(v) if isinstance(v, tuple) else v for k, v in layout.transformer},
        },
        vanilla_mbridge=True,
        use_remove_padding=False,
        dtype=precision,
        **engine,
    )
    return kind(
        rollout_n=1, use_kl_loss=True, use_torch_compile=False, megatron=engine_config, **actor
    )


def build_engine(
    actor: Any,
    checkpoint: Path,
    *,
    learning_rate: float,
    contents: Mapping[str, list[str]] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    **model: Any,
) -> Any:
    """The engine that veRL's worker would build for this actor.

    The model-parallel groups of an engine built before are given up: it cannot be used any more.

    Args:
        actor: the actor's configuration; its engine configuration names the backend.
        checkpoint: folder of the model.
        learning_rate: of Adam, constant.
        contents: veRL's `save_contents` and `load_contents`.
        optimizer: fields of Megatron-core's OptimizerConfig.
        **model: fields of HFModelConfig.
    """
    parallel_state.destroy_model_parallel()
    _close_groups()
    model_config = HFModelConfig(
        path=str(checkpoint),
        load_tokenizer=False,
        override_config={"attn_implementation": "eager"},
        use_remove_padding=False,
        **model,
    )
    object.__setattr__(model_config, "tokenizer", _tokenizer())
    optimizer_config = McoreOptimizerConfig(
        lr=learning_rate,
        lr_decay_style="constant",
        total_training_steps=STEPS,
        override_optimizer_config=dict(optimizer or {}),
    )
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor.engine.strategy,
        model_config=model_config,
        engine_config=actor.engine,
        optimizer_config=optimizer_config,
        checkpoint_config=CheckpointConfig(**(contents or {})),
    )
    # It prints its whole configuration.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        engine.initialize()
    return engine


def _tokenizer() -> PreTrainedTokenizerFast:
    """The engine asks it for the id that fills up short rows, and a checkpoint saves it."""
    words = Tokenizer(models.WordLevel({"0": 0}, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0")


def _close_groups() -> None:
    """Close the process groups of the engine before, which Megatron-core only forgets.

    Each has threads of its own, and thousands of them are slower than the engines.
    """
    gc.collect()
    for group in list(distributed_c10d._world.pg_map):
        if group is not dist.group.WORLD:
            dist.destroy_process_group(group)
