"""Megatron configurations that PCR cannot be right for; each error names the remedy."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pcr_plugin.blocks import Block
from pcr_plugin.config import UpdateRule
from pcr_plugin.config.checks import reject
from pcr_plugin.distributed import gather_lists, group_of_all
from pcr_plugin.verl.megatron_slices import buffer_slices

_MEGATRON = "actor_rollout_ref.actor.megatron"


def check_megatron(engine: Any, rule: UpdateRule) -> None:
    """Refuse what can be told from the engine's configuration.

    Args:
        engine: veRL's McoreEngineConfig.
        rule: the resolved rule.

    Raises:
        ValueError: names key, value and remedy.
    """
    for key, why in (
        ("use_megatron_fsdp", "its gradients are in buffers of another kind; set it to False"),
        ("dynamic_context_parallel", "not shown to be right; set it to False"),
    ):
        if getattr(engine, key, False):
            reject(f"{_MEGATRON}.{key}", True, why)
    _check_units(f"{_MEGATRON}.context_parallel_size", engine.context_parallel_size, rule)
    if may_hold_experts(rule):
        _check_slices(
            engine.tensor_model_parallel_size,
            engine.expert_model_parallel_size,
            engine.expert_tensor_parallel_size,
            rule,
        )
    # Bridges set some of these by themselves, so the worker looks at the built model, too.
    _check_fields((engine.override_transformer_config or {}).get, rule)
    _check_buffer_fields((engine.override_ddp_config or {}).get)


def micro_batches_at_a_time(engine: Any) -> int:
    """What a pass's number of micro-batches has to be a multiple of: with virtual stages their
    schedule takes them in groups.

    Args:
        engine: veRL's McoreEngineConfig.
    """
    if (engine.virtual_pipeline_model_parallel_size or 1) == 1:
        return 1
    overrides = engine.override_transformer_config or {}
    own = overrides.get("microbatch_group_size_per_vp_stage")
    # Megatron-core's own default.
    return int(own or engine.pipeline_model_parallel_size)


def may_hold_experts(rule: UpdateRule) -> bool:
    """Whether the scope holds the experts of a model that has some; of names only a worker knows.

    Args:
        rule: the resolved rule.
    """
    return rule.settings.scope in ("mlp", "all")


def _check_slices(tensor: int, experts: int, of_experts: int | None, rule: UpdateRule) -> None:
    """Refuse experts whose ranks share the tokens of a micro-batch, where they are units."""
    together = experts * (of_experts or tensor)
    if experts > 1 and together % tensor and watches_micro_batches(rule):
        reject(
            f"{_MEGATRON}.expert_model_parallel_size",
            experts,
            f"the experts of {together} ranks then see a slice of the tokens that {tensor} "
            "tensor-parallel ranks share, which is no unit of "
            f"pcr.variance.estimator=micro_batch; use split_half, or a multiple of {tensor} ranks",
        )


def _check_fields(value_of: Callable[[str], Any], rule: UpdateRule) -> None:
    """Fields of Megatron-core's TransformerConfig.

    Args:
        value_of: from a field's name; `None` where nothing is said.
        rule: the resolved rule.
    """
    prefix = f"{_MEGATRON}.override_transformer_config"
    if value_of("calculate_per_token_loss"):
        reject(f"{prefix}.calculate_per_token_loss", True, "not shown to be right; set it to False")
    if value_of("gradient_accumulation_fusion") and watches_micro_batches(rule):
        reject(
            f"{prefix}.gradient_accumulation_fusion",
            True,
            "weight gradients then never pass a hook; leave it out, or use "
            "pcr.variance.estimator=sequence or split_half",
        )
    captured = "a captured pass keeps what changes between ours: its hooks, and its coefficients"
    for field, off in (
        ("enable_cuda_graph", False),
        ("external_cuda_graph", False),
        ("cuda_graph_impl", "none"),
    ):
        if value_of(field) not in (None, off):
            reject(f"{prefix}.{field}", value_of(field), f"{captured}; set it to {off}")
    if value_of("dsa_indexer_loss_coeff"):
        reject(
            f"{prefix}.dsa_indexer_loss_coeff",
            value_of("dsa_indexer_loss_coeff"),
            "this loss would count in every pass; set it to 0",
        )


def check_transformer(config: Any, rule: UpdateRule) -> None:
    """Refuse what only the built model tells, since bridges set some of it by themselves.

    Args:
        config: Megatron-core's TransformerConfig.
        rule: the resolved rule.

    Raises:
        ValueError: names key, value and remedy.
    """
    if config.num_moe_experts:
        _check_experts(config)
    _check_fields(lambda field: getattr(config, field, None), rule)


def _check_experts(config: Any) -> None:
    tensor, of_experts = config.tensor_model_parallel_size, config.expert_tensor_parallel_size
    if config.expert_model_parallel_size == 1 and of_experts != tensor:
        reject(
            f"{_MEGATRON}.expert_tensor_parallel_size",
            of_experts,
            "without expert parallelism Megatron-core does not reduce the experts' gradients over "
            f"the {tensor} tensor-parallel ranks, with or without a rule; leave it out, or set "
            f"expert_model_parallel_size={tensor}",
        )


def check_buffers(chunks: Sequence[Any]) -> None:
    """Refuse gradient buffers that are shared or sharded in ways not shown right.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules.

    Raises:
        ValueError: names key, value and remedy.
    """
    for chunk in chunks:
        _check_buffer_fields(partial(getattr, chunk.ddp_config))
    for part in buffer_slices(chunks):
        start = part.bucket.grad_data.data_ptr()
        size = part.bucket.grad_data.numel() * part.bucket.grad_data.element_size()
        assert start <= part.parameter.main_grad.data_ptr() < start + size, part.name


def _check_buffer_fields(value_of: Callable[..., Any]) -> None:
    """Fields of Megatron-core's DistributedDataParallelConfig.

    Args:
        value_of: from a field's name and what it is where nothing is said.
    """
    prefix = f"{_MEGATRON}.override_ddp_config"
    instances = value_of("num_distributed_optimizer_instances", 1)
    if instances > 1:
        why = "not shown to be right; use 1"
        reject(f"{prefix}.num_distributed_optimizer_instances", instances, why)
    if value_of("reuse_grad_buf_for_mxfp8_param_ag", False):
        reject(
            f"{prefix}.reuse_grad_buf_for_mxfp8_param_ag",
            True,
            "a second pass would gather parameters into the buffer of the gradients; use False",
        )


def check_watched(
    chunks: Sequence[Any], blocks: Sequence[Block], rule: UpdateRule, config: Any
) -> None:
    """Refuse hooks on parameters whose gradient of a micro-batch no single rank sees whole.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules.
        blocks: the scope's blocks.
        rule: the resolved rule.
        config: Megatron-core's TransformerConfig.

    Raises:
        ValueError: names the parameters and the remedy.
    """
    inside = {name for block in blocks for name in block.parameters}
    parts = [part for part in buffer_slices(chunks) if part.name in inside]
    spread = [part.name for part in parts if part.of_expert_ranks]
    if gather_lists(spread, group_of_all()):
        _check_slices(
            config.tensor_model_parallel_size,
            config.expert_model_parallel_size,
            config.expert_tensor_parallel_size,
            rule,
        )
    here = sorted(
        part.name
        for part in parts
        if getattr(part.parameter, "sequence_parallel", False)
        or (
            getattr(part.parameter, "shared_embedding", False)
            and config.pipeline_model_parallel_size > 1
        )
    )
    # All stages raise, or the others would wait for those that did.
    partial = gather_lists(here, group_of_all())
    if partial and watches_micro_batches(rule):
        reject(
            "pcr.scope",
            rule.settings.scope,
            f"a rank sees only a part of the gradients of {', '.join(partial)} in a micro-batch; "
            "leave them out, or use pcr.variance.estimator=split_half",
        )


def _check_units(key: str, ranks: int, rule: UpdateRule) -> None:
    if ranks > 1 and watches_micro_batches(rule):
        reject(
            key,
            ranks,
            "a rank then sees a slice of the tokens of each micro-batch, which is no unit of "
            "pcr.variance.estimator=micro_batch; use sequence or split_half, or set it to 1",
        )


def watches_micro_batches(rule: UpdateRule) -> bool:
    """Whether hooks see a weight's gradient once a micro-batch."""
    return rule.settings.variance.estimator == "micro_batch"
