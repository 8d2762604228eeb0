"""veRL's own `ppo_loss`, whole and in two parts: value, gradient and metrics.

No process group and no engine: the loss gets a model's output as an engine would hand it over.
"""

import copy
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import verl
from verl.trainer.ppo.core_algos import agg_loss, kl_penalty
from verl.utils.metric import Metric
from verl.utils.py_functional import append_to_dict
from verl.workers.config import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss, sft_loss, value_loss

from pcr_plugin.verl.losses import SplitLoss
from pcr_plugin.verl.outputs import merge
from pcr_plugin.verl.refusals_losses import BIASED_KL, GOOD_KL, of_sequences
from tests.integration.loss_inputs import (
    BETA,
    PROMPTS,
    RESPONSES,
    actor_config,
    evaluate,
    micro_batch,
    model_output,
)
from tests.support.policy_losses import AGGREGATIONS, loss_modes

LOSS_MODES = loss_modes()
KL_TYPES = (*GOOD_KL, *BIASED_KL)


def split(config: FSDPActorConfig) -> SplitLoss:
    return SplitLoss(partial(ppo_loss, config=config), lambda data: None)


def test_every_policy_loss_of_verl_is_here() -> None:
    """The registry, against every place in veRL's source that adds to it."""
    assert verl.__file__ is not None
    files = Path(verl.__file__).parent.rglob("*.py")
    found = {
        name
        for file in files
        for name in re.findall(
            r"@register_policy_loss\(\s*['\"](\w+)['\"]", file.read_text(errors="replace")
        )
    }
    assert found == set(LOSS_MODES)
    assert len(found) >= 12


def test_a_policy_loss_may_be_a_dictionary() -> None:
    """As veRL reads it from a recipe of one's own, without `_target_`."""
    config = actor_config()
    object.__setattr__(config, "policy_loss", {"loss_mode": "vanilla"})
    case = {"dtype": torch.float64, "entropy": False}
    value, _, _ = evaluate(partial(ppo_loss, config=config), 0, **case)
    parts = split(config)
    pla, _, _ = evaluate(parts.plasticity(), 0, **case)
    sta, _, _ = evaluate(parts.stability(), 0, **case)
    assert value == pytest.approx(pla + BETA * sta, rel=1e-10)
    assert config.policy_loss == {"loss_mode": "vanilla"}


@pytest.mark.parametrize("loss_mode", LOSS_MODES)
@pytest.mark.parametrize(("aggregation", "horizon"), AGGREGATIONS)
@pytest.mark.parametrize(("entropy", "importance"), [(False, False), (True, False), (False, True)])
def test_the_two_parts_add_up_to_the_stock_loss(
    loss_mode: str, aggregation: str, horizon: int | None, entropy: bool, importance: bool
) -> None:
    for seed, kind in enumerate(KL_TYPES):
        config = actor_config(
            loss_mode=loss_mode,
            loss_agg_mode=aggregation,
            loss_scale_factor=horizon,
            kl_loss_type=kind,
        )
        case = {"dtype": torch.float64, "entropy": entropy, "importance": importance}
        stock = partial(ppo_loss, config=copy.deepcopy(config))
        value, gradients, _ = evaluate(stock, seed, **case)
        parts = split(config)
        pla_value, pla_gradients, _ = evaluate(parts.plasticity(), seed, **case)
        sta_value, sta_gradients, _ = evaluate(parts.stability(), seed, **case)
        assert parts.beta == BETA
        assert value == pytest.approx(pla_value + BETA * sta_value, rel=1e-10), kind
        for whole, p, s in zip(gradients, pla_gradients, sta_gradients, strict=True):
            torch.testing.assert_close(whole, p + BETA * s, rtol=1e-10, atol=1e-14)
        assert any(g.any() for g in pla_gradients)
        assert any(g.any() for g in sta_gradients)


@pytest.mark.parametrize("loss_mode", LOSS_MODES)
def test_in_float32_with_importance_weights(loss_mode: str) -> None:
    config = actor_config(loss_mode=loss_mode)
    case = {"dtype": torch.float32, "entropy": True, "importance": True}
    value, gradients, _ = evaluate(partial(ppo_loss, config=copy.deepcopy(config)), 3, **case)
    pla_value, pla_gradients, _ = evaluate(split(config).plasticity(), 3, **case)
    sta_value, sta_gradients, _ = evaluate(split(config).stability(), 3, **case)
    assert value == pytest.approx(pla_value + BETA * sta_value, rel=1e-6, abs=1e-6)
    for whole, p, s in zip(gradients, pla_gradients, sta_gradients, strict=True):
        torch.testing.assert_close(whole, p + BETA * s, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KL_TYPES)
@pytest.mark.parametrize(("aggregation", "horizon"), AGGREGATIONS)
def test_the_stability_part_is_the_kl_alone(
    kind: str, aggregation: str, horizon: int | None
) -> None:
    """Against veRL's estimator and aggregation, called without its `ppo_loss`."""
    config = actor_config(
        loss_mode="gspo",
        loss_agg_mode=aggregation,
        loss_scale_factor=horizon,
        kl_loss_type=kind,
        entropy_coeff=0.5,
    )
    value, gradients, metrics = evaluate(
        split(config).stability(), 5, dtype=torch.float64, entropy=False
    )
    output, inputs = model_output(5, dtype=torch.float64, entropy=False)
    padded = micro_batch(5, dtype=torch.float64).select("ref_log_prob", "response_mask")
    reference, mask = padded["ref_log_prob"], padded["response_mask"]
    # The log-probability of a token stands one place before it.
    rows = [
        row[p - 1 : p + r - 1]
        for row, p, r in zip(output["log_probs"].unbind(), PROMPTS, RESPONSES, strict=True)
    ]
    log_probs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    estimate = kl_penalty(log_probs, torch.nested.to_padded_tensor(reference, 0.0), kind)
    expected = agg_loss(
        estimate,
        torch.nested.to_padded_tensor(mask, 0).bool(),
        aggregation,
        dp_size=2,
        batch_num_tokens=40,
        global_batch_size=8,
        loss_scale_factor=horizon,
    )
    (expected_gradient,) = torch.autograd.grad(expected, inputs)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradients[0], expected_gradient, rtol=1e-12, atol=1e-15)
    assert metrics["kl_loss"].aggregate() == pytest.approx(expected.item(), rel=1e-12)


def test_the_plasticity_part_does_not_see_the_reference() -> None:
    plain = actor_config(use_kl_loss=False)
    expected = evaluate(partial(ppo_loss, config=plain), 6, dtype=torch.float64, entropy=True)
    value, gradients, metrics = evaluate(
        split(actor_config()).plasticity(), 6, dtype=torch.float64, entropy=True
    )
    assert value == expected[0]
    for ours, stock in zip(gradients, expected[1], strict=True):
        torch.testing.assert_close(ours, stock, rtol=0, atol=0)
    assert "kl_loss" not in metrics


def test_losses_that_weigh_sequences_whatever_they_are_told() -> None:
    """With the others the units of the variance weigh the same in p as in s."""
    found = set()
    for mode in LOSS_MODES:
        alike = []
        for aggregation in ("token-mean", "seq-mean-token-mean"):
            config = actor_config(
                loss_mode=mode, loss_agg_mode=aggregation, use_kl_loss=False, entropy_coeff=0
            )
            loss = partial(ppo_loss, config=config)
            alike += evaluate(loss, 4, dtype=torch.float64, entropy=False)[1]
        if torch.equal(*alike):
            found.add(mode)
    assert found == set(of_sequences())


def engine_output(config: FSDPActorConfig, loss: Any, entropy: bool) -> dict[str, Any]:
    """Two micro-batches, collected as veRL's engines do."""
    metrics: dict[str, Any] = {}
    losses = []
    for seed in (7, 8):
        value, _, found = evaluate(loss, seed, dtype=torch.float64, entropy=entropy)
        losses.append(value)
        append_to_dict(metrics, found)
    return {"model_output": {}, "loss": losses, "metrics": metrics}


def reduced(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        name: value.aggregate() if isinstance(value, Metric) else sum(value) / len(value)
        for name, value in metrics.items()
    }


@pytest.mark.parametrize("loss_mode", LOSS_MODES)
@pytest.mark.parametrize("entropy", [False, True])
def test_metrics_keep_their_names_and_values(loss_mode: str, entropy: bool) -> None:
    config = actor_config(loss_mode=loss_mode)
    stock = engine_output(config, partial(ppo_loss, config=copy.deepcopy(config)), entropy)
    plasticity = engine_output(config, split(config).plasticity(), entropy)
    stability = engine_output(config, split(config).stability(), False)
    merged = merge(plasticity, stability, BETA)
    assert merged.keys() == stock.keys()
    assert merged["loss"] == pytest.approx(stock["loss"], rel=1e-12)
    assert merged["metrics"].keys() == stock["metrics"].keys()
    for name, value in reduced(stock["metrics"]).items():
        assert reduced(merged["metrics"])[name] == pytest.approx(value, rel=1e-12), name
    for name, value in stock["metrics"].items():
        ours = merged["metrics"][name]
        assert type(ours) is type(value), name
        if isinstance(value, Metric):
            assert ours.aggregation == value.aggregation, name
            assert len(ours.values) == len(value.values), name


def test_metrics_of_a_rank_without_an_output() -> None:
    """Not the last pipeline stage: no losses, no metrics."""
    empty: dict[str, Any] = {"model_output": {}, "loss": [], "metrics": {}}
    assert merge(copy.deepcopy(empty), copy.deepcopy(empty), BETA) == empty


def test_the_actor_s_own_configuration_is_not_changed() -> None:
    config = actor_config(loss_mode="gspo")
    before = repr(config)
    parts = split(config)
    parts.plasticity()
    parts.stability()
    assert repr(config) == before
    assert config.policy_loss.loss_mode == "gspo"


def test_micro_batches_are_announced_before_their_loss() -> None:
    seen: list[Any] = []
    parts = SplitLoss(partial(ppo_loss, config=actor_config()), seen.append)
    for loss in (parts.stability(), parts.plasticity()):
        evaluate(loss, 0, dtype=torch.float64, entropy=False)
    assert [len(data) for data in seen] == [len(PROMPTS)] * 2


def custom_loss(config: Any, model_output: Any, data: Any, dp_group: Any = None) -> Any:
    """A loss that somebody else wrote."""


@pytest.mark.parametrize(
    "loss",
    [
        partial(custom_loss, config=None),
        partial(sft_loss, config=None),
        partial(value_loss, config=None),
        partial(ppo_loss, actor_config()),
        partial(ppo_loss, config=actor_config(), dp_group=None),
        partial(partial(custom_loss, config=None), data=None),
        ppo_loss,
        lambda model_output, data, dp_group=None: None,
        None,
    ],
    ids=[
        "custom",
        "sft",
        "value",
        "ppo with a place for config",
        "ppo with more",
        "custom twice",
        "ppo itself",
        "lambda",
        "none",
    ],
)
def test_other_losses_are_refused(loss: Any) -> None:
    with pytest.raises(ValueError) as caught:
        SplitLoss(loss, lambda data: None)
    message = str(caught.value)
    assert "update_rule" in message
    assert "functools.partial(verl.workers.utils.losses.ppo_loss, config=" in message
    assert "update_rule=null" in message


def test_the_distillation_loss_is_refused() -> None:
    """What veRL hands to the engine when `distillation.enabled` is true."""
    from verl.trainer.distillation.losses import distillation_ppo_loss

    with pytest.raises(ValueError, match="Distillation"):
        split_of = partial(distillation_ppo_loss, config=actor_config(), distillation_config=None)
        SplitLoss(split_of, lambda data: None)
