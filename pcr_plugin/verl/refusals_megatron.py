"""Megatron configurations that PCR cannot be right for; each error names the remedy."""

from collections.abc import Sequence
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
    tensor, experts = engine.tensor_model_parallel_size, engine.expert_model_parallel_size
    together = experts * (engine.expert_tensor_parallel_size or tensor)
    if experts > 1 and together % tensor and _watches_micro_batches(rule):
        reject(
            f"{_MEGATRON}.expert_model_parallel_size",
            experts,
            f"the experts of {together} ranks then see a slice of the tokens that {tensor} "
            "tensor-parallel ranks share, which is no unit of "
            f"pcr.variance.estimator=micro_batch; use split_half, or a multiple of {tensor} ranks",
        )


def check_transformer(config: Any, rule: UpdateRule) -> None:
    """Refuse what only the built model tells, since bridges set some of it by themselves.

    Args:
        config: Megatron-core's TransformerConfig.
        rule: the resolved rule.

    Raises:
        ValueError: names key, value and remedy.
    """
    prefix = f"{_MEGATRON}.override_transformer_config"
    if config.num_moe_experts:
        _check_experts(config)
    if config.calculate_per_token_loss:
        reject(f"{prefix}.calculate_per_token_loss", True, "not shown to be right; set it to False")
    if config.gradient_accumulation_fusion and _watches_micro_batches(rule):
        reject(
            f"{prefix}.gradient_accumulation_fusion",
            True,
            "weight gradients then never pass a hook; set it to False, or use "
            "pcr.variance.estimator=sequence or split_half",
        )


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
        instances = chunk.ddp_config.num_distributed_optimizer_instances
        if instances > 1:
            reject(
                f"{_MEGATRON}.override_ddp_config.num_distributed_optimizer_instances",
                instances,
                "not shown to be right; use 1",
            )
        if getattr(chunk.ddp_config, "reuse_grad_buf_for_mxfp8_param_ag", False):
            reject(
                f"{_MEGATRON}.override_ddp_config.reuse_grad_buf_for_mxfp8_param_ag",
                True,
                "a second pass would gather parameters into the buffer of the gradients; use False",
            )
    for part in buffer_slices(chunks):
        start = part.bucket.grad_data.data_ptr()
        size = part.bucket.grad_data.numel() * part.bucket.grad_data.element_size()
        assert start <= part.parameter.main_grad.data_ptr() < start + size, part.name


def check_watched(
    chunks: Sequence[Any], blocks: Sequence[Block], rule: UpdateRule, config: Any
) -> None:
    """Refuse hooks on parameters whose gradient no single rank sees whole.

    Args:
        chunks: Megatron-core's DistributedDataParallel modules.
        blocks: the scope's blocks.
        rule: the resolved rule.
        config: Megatron-core's TransformerConfig.

    Raises:
        ValueError: names the parameters and the remedy.
    """
    inside = {name for block in blocks for name in block.parameters}
    here = sorted(
        part.name
        for part in buffer_slices(chunks)
        if part.name in inside
        and (
            getattr(part.parameter, "sequence_parallel", False)
            or (
                getattr(part.parameter, "shared_embedding", False)
                and config.pipeline_model_parallel_size > 1
            )
        )
    )
    # All stages raise, or the others would wait for those that did.
    partial = gather_lists(here, group_of_all())
    if partial and _watches_micro_batches(rule):
        reject(
            "pcr.scope",
            rule.settings.scope,
            f"a rank sees only a part of the gradients of {', '.join(partial)} in a micro-batch; "
            "leave them out, or use pcr.variance.estimator=split_half",
        )


def _check_units(key: str, ranks: int, rule: UpdateRule) -> None:
    if ranks > 1 and _watches_micro_batches(rule):
        reject(
            key,
            ranks,
            "a rank then sees a slice of the tokens of each micro-batch, which is no unit of "
            "pcr.variance.estimator=micro_batch; use sequence or split_half, or set it to 1",
        )


def _watches_micro_batches(rule: UpdateRule) -> bool:
    return rule.settings.variance.estimator == "micro_batch"


def _halves(rule: UpdateRule) -> bool:
    return rule.settings.variance.estimator == "split_half"
