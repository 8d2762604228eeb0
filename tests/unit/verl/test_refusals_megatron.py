"""What cannot be right on Megatron-core, of the engine's configuration and of the built model's."""

from types import SimpleNamespace
from typing import Any

import pytest

from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings, resolve
from pcr_plugin.verl.refusals_megatron import check_megatron, check_transformer

MEGATRON = "actor_rollout_ref.actor.megatron"
TRANSFORMER = f"{MEGATRON}.override_transformer_config"


def rule(estimator: str = "micro_batch", scope: Any = "mlp") -> UpdateRule:
    """`update_rule=pcr` with one of the estimators."""
    variance = VarianceSettings(estimator=estimator)
    found = resolve("pcr", PCRSettings(variance=variance, scope=scope))
    assert found is not None
    return found


def engine(**changes: Any) -> SimpleNamespace:
    """veRL's engine configuration, as far as it is read."""
    values: dict[str, Any] = {
        "use_megatron_fsdp": False,
        "dynamic_context_parallel": False,
        "context_parallel_size": 1,
        "tensor_model_parallel_size": 1,
        "expert_model_parallel_size": 1,
        "expert_tensor_parallel_size": None,
        "override_transformer_config": {},
        "override_ddp_config": {},
    }
    return SimpleNamespace(**(values | changes))


def transformer(**changes: Any) -> SimpleNamespace:
    """Megatron-core's TransformerConfig, as far as it is read."""
    values: dict[str, Any] = {
        "num_moe_experts": None,
        "calculate_per_token_loss": False,
        "gradient_accumulation_fusion": False,
    }
    return SimpleNamespace(**(values | changes))


@pytest.mark.parametrize("estimator", ["micro_batch", "split_half"])
@pytest.mark.parametrize("key", ["use_megatron_fsdp", "dynamic_context_parallel"])
def test_buffers_of_another_kind_are_refused(key: str, estimator: str) -> None:
    with pytest.raises(ValueError, match="set it to False") as caught:
        check_megatron(engine(**{key: True}), rule(estimator))
    assert str(caught.value).startswith(f"{MEGATRON}.{key}=True is not possible: ")


def test_context_parallel_ranks_see_slices_of_a_micro_batch() -> None:
    with pytest.raises(ValueError, match=r"context_parallel_size=2.*or split_half"):
        check_megatron(engine(context_parallel_size=2), rule())
    check_megatron(engine(context_parallel_size=2), rule("split_half"))


def test_experts_of_fewer_ranks_than_tensor_parallelism_see_slices() -> None:
    changes = {"tensor_model_parallel_size": 4, "expert_tensor_parallel_size": 1}
    few = engine(expert_model_parallel_size=2, **changes)
    with pytest.raises(ValueError, match=r"expert_model_parallel_size=2.*a multiple of 4"):
        check_megatron(few, rule())
    check_megatron(few, rule("split_half"))
    check_megatron(engine(expert_model_parallel_size=4, **changes), rule())
    # Six ranks of experts and four tensor-parallel ones: some of these are in two groups.
    across = engine(expert_model_parallel_size=6, **changes)
    with pytest.raises(ValueError, match=r"expert_model_parallel_size=6.*a multiple of 4"):
        check_megatron(across, rule())


@pytest.mark.parametrize("estimator", ["micro_batch", "split_half"])
def test_the_rest_is_accepted(estimator: str) -> None:
    check_megatron(engine(), rule(estimator))
    check_transformer(transformer(), rule(estimator))


@pytest.mark.parametrize("estimator", ["micro_batch", "split_half"])
@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("calculate_per_token_loss", True, "set it to False"),
        ("enable_cuda_graph", True, "set it to False"),
        ("cuda_graph_impl", "local", "set it to none"),
        ("dsa_indexer_loss_coeff", 0.1, "set it to 0"),
    ],
)
def test_models_that_are_refused(key: str, value: object, remedy: str, estimator: str) -> None:
    """In the driver, where the recipe says it, and in the worker, where the model has it."""
    overriding = engine(override_transformer_config={key: value})
    for check, found in (
        (check_transformer, transformer(**{key: value})),
        (check_megatron, overriding),
    ):
        with pytest.raises(ValueError, match=remedy) as caught:
            check(found, rule(estimator))
        assert str(caught.value).startswith(f"{TRANSFORMER}.{key}={value!r} is not possible: ")


@pytest.mark.parametrize("scope", ["attention", ("shared_experts",)])
def test_a_scope_without_experts_has_no_units_of_theirs(scope: Any) -> None:
    few = engine(
        tensor_model_parallel_size=4, expert_tensor_parallel_size=1, expert_model_parallel_size=2
    )
    check_megatron(few, rule(scope=scope))
    with pytest.raises(ValueError, match="slice of the tokens"):
        check_megatron(few, rule(scope="all"))


def test_fused_weight_gradients_pass_no_hook() -> None:
    fused = transformer(gradient_accumulation_fusion=True)
    with pytest.raises(ValueError, match=r"gradient_accumulation_fusion=True.*split_half"):
        check_transformer(fused, rule())
    check_transformer(fused, rule("split_half"))
