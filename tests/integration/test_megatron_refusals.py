"""What only the built Megatron model tells, on Megatron-core's own configuration classes."""

from types import SimpleNamespace
from typing import Any

import pytest
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.transformer import TransformerConfig

from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings, resolve
from pcr_plugin.verl.refusals_megatron import check_buffers, check_transformer


def rule(estimator: str = "micro_batch") -> UpdateRule:
    resolved = resolve("pcr", PCRSettings(variance=VarianceSettings(estimator=estimator)))
    assert resolved is not None
    return resolved


def transformer(**changes: Any) -> TransformerConfig:
    sizes = {"num_layers": 2, "hidden_size": 8, "num_attention_heads": 2}
    return TransformerConfig(**sizes, add_bias_linear=False, **changes)


@pytest.mark.parametrize("estimator", ["micro_batch", "split_half"])
def test_a_dense_model_is_accepted(estimator: str) -> None:
    check_transformer(transformer(), rule(estimator))


EXPERTS: tuple[dict[str, Any], ...] = (
    {},
    {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    {"expert_model_parallel_size": 2},
    {
        "tensor_model_parallel_size": 2,
        "sequence_parallel": True,
        "expert_tensor_parallel_size": 1,
        "expert_model_parallel_size": 2,
    },
    {"moe_router_load_balancing_type": "seq_aux_loss", "moe_aux_loss_coeff": 0.01},
    {"moe_router_load_balancing_type": "global_aux_loss", "moe_aux_loss_coeff": 0.01},
    {"mtp_num_layers": 1},
)


@pytest.mark.parametrize("estimator", ["micro_batch", "split_half"])
@pytest.mark.parametrize("changes", EXPERTS, ids=lambda changes: ",".join(changes) or "one rank")
def test_experts_are_accepted(changes: dict[str, Any], estimator: str) -> None:
    check_transformer(transformer(num_moe_experts=4, **changes), rule(estimator))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "num_moe_experts": 4,
                "tensor_model_parallel_size": 2,
                "sequence_parallel": True,
                "expert_tensor_parallel_size": 1,
            },
            ["expert_tensor_parallel_size=1", "expert_model_parallel_size=2"],
        ),
        ({"cuda_graph_impl": "local"}, ["cuda_graph_impl='local'", "set it to none"]),
        ({"dsa_indexer_loss_coeff": 0.1}, ["dsa_indexer_loss_coeff=0.1", "set it to 0"]),
        ({"calculate_per_token_loss": True}, ["calculate_per_token_loss=True", "set it to False"]),
        (
            {"gradient_accumulation_fusion": True},
            ["gradient_accumulation_fusion=True", "split_half"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refused_with_key_value_and_remedy(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match="is not possible") as caught:
        check_transformer(transformer(**changes), rule())
    assert all(word in str(caught.value) for word in words)


def test_fused_accumulation_is_no_matter_without_hooks() -> None:
    check_transformer(transformer(gradient_accumulation_fusion=True), rule("split_half"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("num_distributed_optimizer_instances", 2), ("reuse_grad_buf_for_mxfp8_param_ag", True)],
)
def test_buffers_that_are_shared_are_refused(setting: str, value: Any) -> None:
    settings = DistributedDataParallelConfig(
        use_distributed_optimizer=True, fp8_param_gather=True, **{setting: value}
    )
    with pytest.raises(ValueError, match=f"{setting}={value}"):
        check_buffers([SimpleNamespace(ddp_config=settings)])
