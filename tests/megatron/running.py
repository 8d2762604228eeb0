"""Run one case on this rank and record what happened."""

import contextlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.transformer.moe.moe_utils import get_moe_layer_wise_logging_tracker
from torch import Tensor
from verl.workers.config.engine import EngineRouterReplayConfig
from verl.workers.config.model import MtpConfig
from verl.workers.utils.losses import ppo_loss

from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe
from tests.distributed.records import StepRecord, aggregated, digest
from tests.distributed.running import mini_batch
from tests.distributed.variants import CONFIGURED, VARIANTS
from tests.megatron.auxiliary_cases import MEASURED
from tests.megatron.cases import EXACT, OFFLOADED, MegatronCase
from tests.megatron.memory import Held
from tests.megatron.records import MegatronRecord
from tests.support.megatron_cpu import exactly
from tests.support.megatron_engine import actor_config, build_engine
from tests.support.megatron_gathering import (
    bucket_groups,
    unwrapped,
    whole_gradients,
    whole_weights,
)
from tests.support.megatron_offload import bytes_in_buffers, moves, moves_when_built
from tests.support.multi_token import predicting
from tests.support.replayed_routes import with_routes
from tests.support.tiny_model import MODELS
from tests.support.verl_batch import ROW

# float64 is what float32 becomes inside of `exactly`.
_PRECISIONS = {"fp64": "float32", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def run_case(case: MegatronCase, inputs: Inputs) -> MegatronRecord:
    """Build the engine and run every step of the recipe.

    Args:
        case: what to run.
        inputs: models and mini-batches.

    Returns:
        The record; an error is part of it only where the case is meant to fail.
    """
    with contextlib.ExitStack() as stack:
        if case.recipe.precision == "fp64":
            stack.enter_context(exactly())
        if is_offloaded(case.recipe):
            stack.enter_context(moves_when_built())
        return _run_case(case, inputs)


def is_offloaded(recipe: Recipe) -> bool:
    """Whether parameters and gradients leave the device between steps."""
    return bool(dict(recipe.engine).get("param_offload"))


def _run_case(case: MegatronCase, inputs: Inputs) -> MegatronRecord:
    record = MegatronRecord(rule_loaded="pcr_plugin.verl.actor_config" in sys.modules)
    get_moe_layer_wise_logging_tracker().clear()
    try:
        actor, engine = build(case, inputs)
        record.engine = f"{type(engine).__module__}.{type(engine).__qualname__}"
        for chunk in engine.module:
            model = unwrapped(chunk)
            record.layers.append([layer.layer_number for layer in model.decoder.layers])
            record.shards |= {name: p.numel() for name, p in model.named_parameters()}
            groups = bucket_groups(chunk)
            buckets = [bucket for group in groups for bucket in group.buckets]
            record.buckets += [bucket.grad_data.numel() for bucket in buckets]
            record.element_size = buckets[0].grad_data.element_size()
            for name, parameter in model.named_parameters():
                in_copies = not getattr(parameter, "tensor_model_parallel", False)
                record.mlps += parameter.numel() * bool(re.search(r"\.mlp\..*linear_fc", name))
                record.copies += parameter.numel() * (in_copies and case.layout.tensor > 1)
        # As in a run, whose rollout comes before the first step. Without a distributed optimizer
        # veRL's engine cannot.
        if case.layout.distributed_optimizer and not MODELS[case.recipe.model].experts:
            weights = {name: w.detach().clone() for name, w in engine.get_per_tensor_param()[0]}
            record.exported = weights if dist.get_rank() == 0 else {}
        # Different on every rank, as in training.
        torch.manual_seed(1234 + dist.get_rank())
        for step in range(len(case.recipe.batches)):
            with _measuring(case, engine, record):
                done = run_step(case, inputs, actor, engine, step)
            record.steps.append(done)
            record.routers.append(remembered(engine))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        if not case.fails:
            raise
        record.error = f"{type(error).__name__}: {error}"
    return record


@contextmanager
def _measuring(case: MegatronCase, engine: Any, record: MegatronRecord) -> Iterator[None]:
    if case.recipe not in (EXACT, OFFLOADED) and case.layout != MEASURED:
        yield
        return
    with Held(engine) as memory:
        yield
    record.held, record.kept = memory.most, memory.kept
    if is_offloaded(case.recipe):
        record.left_in_buffers.append(bytes_in_buffers(engine))


def build(case: MegatronCase, inputs: Inputs, **settings: Any) -> tuple[Any, Any]:
    """The actor configuration and the engine of a case.

    Args:
        case: the case.
        inputs: models and mini-batches.
        **settings: further arguments of `build_engine`.
    """
    variant, recipe = VARIANTS[case.variant], case.recipe
    replay = EngineRouterReplayConfig(mode="R2" if case.replayed else "disabled")
    actor = actor_config(
        layout=case.layout,
        kind=_actor_class(case.variant),
        precision=_PRECISIONS[recipe.precision],
        engine={"router_replay": replay, **dict(recipe.engine)},
        ppo_mini_batch_size=16,
        ppo_micro_batch_size_per_gpu=recipe.micro_batch(0),
        use_dynamic_bsz=recipe.token_budget is not None,
        loss_agg_mode=recipe.objective.aggregation,
        kl_loss_type=recipe.objective.kl,
        kl_loss_coef=recipe.beta,
        entropy_coeff=recipe.objective.entropy,
    )
    if variant.rule is not None:
        from pcr_plugin.verl import enable

        enable(actor, variant.rule, log_blocks=True, **variant.settings)
    checkpoint = inputs.checkpoints[recipe.model]
    if case.predicts:
        checkpoint = predicting(checkpoint)
        settings["mtp"] = MtpConfig(enable=True, enable_train=True, mtp_loss_scaling_factor=0.5)
    engine = build_engine(
        actor,
        checkpoint,
        learning_rate=recipe.learning_rate,
        optimizer=dict(recipe.optimizer),
        **settings,
    )
    return actor, engine


def run_step(case: MegatronCase, inputs: Inputs, actor: Any, engine: Any, step: int) -> StepRecord:
    """One optimizer step, as veRL's worker makes it."""
    replica = (engine.get_data_parallel_rank(), engine.get_data_parallel_size())
    batch = mini_batch(case.recipe, inputs, step, replica)
    if case.replayed:
        batch = with_routes(batch, MODELS[case.recipe.model], seed=step)
    record = StepRecord()
    context = moves if is_offloaded(case.recipe) else nullcontext
    with context(), engine.train_mode(), _recording(engine, record):
        output = engine.train_batch(batch, partial(ppo_loss, config=actor))
    # Only the last stage has the losses, and only one of its tensor-parallel ranks the norm.
    metrics = output.get("metrics", {})
    metrics.pop("grad_norm", None)
    record.metrics = {name: aggregated(value) for name, value in metrics.items()}
    record.random_state = torch.get_rng_state()
    with context(), engine.eval_mode():
        weights = whole_weights(engine)
    record.digest = digest(weights)
    if dist.get_rank() == 0:
        record.weights = weights
    update = getattr(engine, "_update", None)
    record.average = update.average.state_dict() if update is not None else None
    return record


def remembered(engine: Any) -> dict[str, Tensor]:
    """What the routers have counted, learned and logged."""
    logged = get_moe_layer_wise_logging_tracker()
    found = {name: entry["values"].clone() for name, entry in logged.items()}
    for chunk in engine.module:
        for name, buffer in unwrapped(chunk).named_buffers():
            if "router." in name:
                found[name] = buffer.clone()
    return found


def _actor_class(variant: str) -> type:
    if variant == CONFIGURED:
        from pcr_plugin.verl.actor_config import PCRMcoreActorConfig

        return PCRMcoreActorConfig
    from verl.workers.config import McoreActorConfig

    kind: type = McoreActorConfig
    return kind


class _recording:
    """Watches the micro-batches that come in and the gradient that the optimizer gets."""

    def __init__(self, engine: Any, record: StepRecord) -> None:
        self._engine, self._record = engine, record

    def __enter__(self) -> None:
        engine, record = self._engine, self._record
        forward_step, optimizer_step = engine.forward_step, engine.optimizer_step

        def forward(batches: Iterator[Any], model: Any, *positional: Any, **named: Any) -> Any:
            micro_batch = next(batches)
            # Every chunk of a stage sees every micro-batch.
            if model is engine.module[-1]:
                record.micro_batches.append(micro_batch[ROW].tolist())
            return forward_step(iter([micro_batch]), model, *positional, **named)

        def step() -> Any:
            scale = float(engine.optimizer.get_loss_scale())
            gradient = {n: g / scale for n, g in whole_gradients(engine).items()}
            if dist.get_rank() == 0:
                record.gradient = gradient
            norm = optimizer_step()
            record.norm = float(norm)
            return norm

        engine.forward_step, engine.optimizer_step = forward, step

    def __exit__(self, *error: object) -> None:
        del self._engine.forward_step, self._engine.optimizer_step
