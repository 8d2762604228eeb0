"""veRL's FSDP engines for a language model, built from its own configuration classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl.trainer.config import CheckpointConfig
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
)
from verl.workers.engine import EngineRegistry

STEPS = 10


def actor_config(
    *,
    kind: type = FSDPActorConfig,
    strategy: str = "fsdp2",
    precision: str = "fp32",
    engine: Mapping[str, Any],
    **actor: Any,
) -> Any:
    """An actor configuration with float32 weights.

    Args:
        kind: class of the actor's configuration.
        strategy: `fsdp` or `fsdp2`.
        precision: of the computation.
        engine: fields of FSDPEngineConfig.
        **actor: fields of the actor's configuration.
    """
    engine_config = FSDPEngineConfig(
        strategy=strategy,
        model_dtype="fp32",
        mixed_precision={"param_dtype": precision, "reduce_dtype": "fp32"},
        use_torch_compile=False,
        **engine,
    )
    return kind(
        strategy=strategy,
        rollout_n=1,
        use_kl_loss=True,
        use_torch_compile=False,
        fsdp_config=engine_config,
        **actor,
    )


def build_engine(
    actor: Any,
    checkpoint: Path,
    *,
    learning_rate: float,
    dropout: float = 0.0,
    attention: str = "sdpa",
    contents: Mapping[str, list[str]] | None = None,
    **model: Any,
) -> Any:
    """The engine that veRL's worker would build for this actor.

    Args:
        actor: the actor's configuration; its engine configuration names the backend.
        checkpoint: folder of the model.
        learning_rate: of AdamW.
        dropout: of the attention.
        attention: transformers' `attn_implementation`.
        contents: veRL's `save_contents` and `load_contents`.
        **model: fields of HFModelConfig.
    """
    model_config = HFModelConfig(
        path=str(checkpoint),
        load_tokenizer=False,
        override_config={"attn_implementation": attention, "attention_dropout": dropout},
        **model,
    )
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor.engine.strategy,
        model_config=model_config,
        engine_config=actor.engine,
        optimizer_config=FSDPOptimizerConfig(lr=learning_rate, total_training_steps=STEPS),
        checkpoint_config=CheckpointConfig(**(contents or {})),
    )
    engine.initialize()
    return engine
