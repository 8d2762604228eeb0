"""Run one case on this rank and record what happened."""

import sys
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import response_from_nested

from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe, rows_of
from tests.distributed.records import CaseRecord, StepRecord, aggregated, digest
from tests.distributed.variants import CONFIGURED, VARIANTS
from tests.support.checkpoint import ADAPTER
from tests.support.gathering import shard_sizes, whole_gradients, whole_weights
from tests.support.packed_attention import PACKED
from tests.support.tiny_model import MODELS
from tests.support.verl_batch import ROW, verl_batch
from tests.support.verl_engine import actor_config, build_engine

LOSS_SCALE = 2.0**10


def run_case(case: Case, inputs: Inputs) -> CaseRecord:
    """Build the engine and run every step of the recipe.

    Args:
        case: what to run.
        inputs: models and mini-batches.

    Returns:
        The record; an error is part of it only where the case is meant to fail.
    """
    record = CaseRecord(rule_loaded="pcr_plugin.verl.actor_config" in sys.modules)
    try:
        actor, engine = build(case, inputs)
        record.engine = f"{type(engine).__module__}.{type(engine).__qualname__}"
        record.shards = shard_sizes(engine.module)
        # Different on every rank, as in training.
        torch.manual_seed(1234 + dist.get_rank())
        for step in range(len(case.recipe.batches)):
            record.steps.append(run_step(case.recipe, inputs, actor, engine, step))
    except (ValueError, RuntimeError) as error:
        if not case.fails:
            raise
        record.error = f"{type(error).__name__}: {error}"
    return record


def build(case: Case, inputs: Inputs, **settings: Any) -> tuple[Any, Any]:
    """The actor configuration and the engine of a case.

    Args:
        case: the case.
        inputs: models and mini-batches.
        **settings: further arguments of `build_engine`.
    """
    variant, recipe = VARIANTS[case.variant], case.recipe
    actor = actor_config(
        kind=_actor_class(case.variant),
        strategy=recipe.strategy,
        precision=recipe.precision,
        engine={
            # veRL 0.9.0 defers always and has no such key.
            **({} if recipe.defer_sync else {"use_no_sync_for_gradient_accumulation": False}),
            "reshard_after_forward": recipe.reshard,
            **dict(recipe.engine),
        },
        ppo_mini_batch_size=12,
        ppo_micro_batch_size_per_gpu=recipe.micro_batch(0),
        use_dynamic_bsz=recipe.token_budget is not None,
        loss_agg_mode=recipe.objective.aggregation,
        kl_loss_type=recipe.objective.kl,
        kl_loss_coef=recipe.beta,
        entropy_coeff=recipe.objective.entropy,
    )
    if variant.rule is not None:
        from pcr_plugin.verl import enable

        enable(actor, variant.rule, log_blocks=True, **case.settings)
    engine = build_engine(
        actor,
        inputs.checkpoints[recipe.model],
        learning_rate=recipe.learning_rate,
        dropout=recipe.dropout,
        attention=PACKED if recipe.sequence_ranks > 1 else "sdpa",
        use_remove_padding=recipe.remove_padding,
        enable_gradient_checkpointing=recipe.checkpointing,
        **_adapter_of(recipe, inputs),
        **settings,
    )
    if recipe.precision == "fp16":
        # veRL asks for a scaler of the device "cuda", which switches itself off without one.
        engine.scaler = ShardedGradScaler(device="cpu", init_scale=LOSS_SCALE)
    return actor, engine


def run_step(recipe: Recipe, inputs: Inputs, actor: Any, engine: Any, step: int) -> StepRecord:
    """One optimizer step, as veRL's worker makes it."""
    batch = mini_batch(recipe, inputs, step)
    if recipe.on_policy:
        batch["ref_log_prob"] = _own_log_probs(engine, batch)
    record = StepRecord()
    with engine.train_mode(), _recording(engine, record):
        output = engine.train_batch(batch, partial(ppo_loss, config=actor))
    # Of the ranks that share sequences only the first returns it.
    record.norm = output["metrics"].pop("grad_norm", record.norm)
    record.metrics = {name: aggregated(value) for name, value in output["metrics"].items()}
    record.random_state = torch.get_rng_state()
    weights = whole_weights(engine.module)
    record.digest = digest(weights)
    if dist.get_rank() == 0:
        record.weights = weights
    update = getattr(engine, "_update", None)
    record.average = update.average.state_dict() if update is not None else None
    return record


def failed_step(recipe: Recipe, inputs: Inputs, actor: Any, engine: Any) -> CaseRecord:
    """One step that may end with a RuntimeError, which the record then has.

    Args:
        recipe: what is trained.
        inputs: models and mini-batches.
        actor: its configuration.
        engine: the engine.
    """
    record = CaseRecord()
    try:
        run_step(recipe, inputs, actor, engine, 0)
    except RuntimeError as error:
        record.error = f"{type(error).__name__}: {error}"
    return record


def mini_batch(
    recipe: Recipe, inputs: Inputs, step: int, replica: tuple[int, int] | None = None
) -> Any:
    """This rank's part of a step's mini-batch.

    Args:
        recipe: what is trained.
        inputs: models and mini-batches.
        step: from 0.
        replica: data-parallel rank and number of them; by default every rank is one, or every
            group of ranks that share sequences.
    """
    trajectories = inputs.batches[recipe.batches[step]]
    rank, ranks = replica or (
        dist.get_rank() // recipe.sequence_ranks,
        dist.get_world_size() // recipe.sequence_ranks,
    )
    return verl_batch(
        trajectories,
        rows_of(rank, ranks, len(trajectories)),
        use_remove_padding=recipe.remove_padding,
        use_dynamic_bsz=recipe.token_budget is not None,
        max_token_len_per_gpu=recipe.token_budget,
        micro_batch_size_per_gpu=recipe.micro_batch(step),
        use_fused_kernels=False,
        calculate_entropy=recipe.objective.entropy != 0,
        global_batch_size=len(trajectories),
        temperature=recipe.objective.temperature,
    )


def _actor_class(variant: str) -> type:
    if variant == CONFIGURED:
        from pcr_plugin.verl.actor_config import PCRFSDPActorConfig

        return PCRFSDPActorConfig
    from verl.workers.config import FSDPActorConfig

    kind: type = FSDPActorConfig
    return kind


def _adapter_of(recipe: Recipe, inputs: Inputs) -> dict[str, Any]:
    """veRL's keys for an adapter that is already trained a little, if the model has one."""
    architecture = MODELS[recipe.model]
    if not architecture.lora_rank:
        return {}
    return {
        "lora_rank": architecture.lora_rank,
        "lora_alpha": architecture.lora_alpha,
        "lora_adapter_path": str(inputs.checkpoints[recipe.model] / ADAPTER),
        "target_modules": "all-linear",
    }


def _own_log_probs(engine: Any, batch: Any) -> Tensor:
    """The reference's log-probabilities when the reference is the policy, as veRL gets them."""
    with engine.eval_mode():
        output = engine.infer_batch(batch.clone())
    log_probs: Tensor = response_from_nested(
        output["model_output"]["log_probs"], batch["response_mask"]
    )
    return log_probs


class _recording:
    """Watches the micro-batches that come in and the gradient that the optimizer gets."""

    def __init__(self, engine: Any, record: StepRecord) -> None:
        self._engine, self._record = engine, record

    def __enter__(self) -> None:
        engine, record = self._engine, self._record
        forward_step, optimizer_step = engine.forward_step, engine.optimizer_step

        def forward(micro_batch: Any, *positional: Any, **named: Any) -> Any:
            loss, output = forward_step(micro_batch, *positional, **named)
            if loss is not None and loss.is_leaf:
                record.unreached.append(len(record.micro_batches))
            record.micro_batches.append(micro_batch[ROW].tolist())
            return loss, output

        def step() -> float:
            scale = engine.scaler.get_scale() if engine.scaler else 1.0
            gradient = {n: g / scale for n, g in whole_gradients(engine.module).items()}
            if dist.get_rank() == 0:
                record.gradient = gradient
            record.norm = optimizer_step()
            return record.norm

        engine.forward_step, engine.optimizer_step = forward, step

    def __exit__(self, *error: object) -> None:
        del self._engine.forward_step, self._engine.optimizer_step
