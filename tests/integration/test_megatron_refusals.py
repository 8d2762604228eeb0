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
    return TransformerConfig(**sizes, **changes)


@pytest.mark.parametrize("estimator", ["micro_batch", "split_half"])
def test_a_dense_model_is_accepted(estimator: str) -> None:
    check_transformer(transformer(), rule(estimator))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_moe_experts": 4}, ["num_moe_experts=4", "not built yet"]),
        ({"mtp_num_layers": 1}, ["mtp_num_layers=1", "use 0"]),
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


def test_several_optimizer_instances_are_refused() -> None:
    settings = DistributedDataParallelConfig(
        use_distributed_optimizer=True, num_distributed_optimizer_instances=2
    )
    with pytest.raises(ValueError, match="num_distributed_optimizer_instances=2"):
        check_buffers([SimpleNamespace(ddp_config=settings)])
