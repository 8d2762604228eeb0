"""A fusion that Megatron-Bridge switches on by itself, in veRL's own engine configuration."""

import logging
from typing import Any

import pytest
from verl.workers.config import McoreEngineConfig

from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings, resolve
from pcr_plugin.verl.megatron_engine import MegatronTwoGradientEngine
from pcr_plugin.verl.megatron_fusion import FUSION


class Stock:
    """Records the overrides that veRL's engine would hand to a bridge."""

    engine_config: Any
    overrides: dict[str, Any]

    def _build_tf_config(self) -> None:
        self.overrides = dict(self.engine_config.override_transformer_config)


class Engine(MegatronTwoGradientEngine, Stock):
    def __init__(self, config: McoreEngineConfig, rule: UpdateRule) -> None:
        self.engine_config = config
        self._rule = rule


def overrides(config: McoreEngineConfig, estimator: str) -> dict[str, Any]:
    """What the bridge is told in an engine with this estimator."""
    rule = resolve("pcr", PCRSettings(variance=VarianceSettings(estimator=estimator)))
    assert rule is not None
    engine = Engine(config, rule)
    engine._build_tf_config()
    return engine.overrides


def test_weight_gradients_pass_the_hooks(caplog: pytest.LogCaptureFixture) -> None:
    given = {"recompute_granularity": "full"}
    config = McoreEngineConfig(override_transformer_config=given)
    with caplog.at_level(logging.WARNING):
        assert overrides(config, "micro_batch") == {**given, FUSION: False}
    assert f"{FUSION}=False" in caplog.text
    assert given == {"recompute_granularity": "full"}, "another engine may share it"


def test_mbridge_needs_no_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = overrides(McoreEngineConfig(vanilla_mbridge=True), "micro_batch")
    assert found[FUSION] is False
    assert not caplog.text


@pytest.mark.parametrize("estimator", ["sequence", "split_half"])
def test_estimators_without_hooks_keep_it(estimator: str) -> None:
    assert FUSION not in overrides(McoreEngineConfig(), estimator)


@pytest.mark.parametrize("asked", [True, False])
def test_what_the_recipe_says_stays(asked: bool) -> None:
    config = McoreEngineConfig(override_transformer_config={FUSION: asked})
    assert overrides(config, "micro_batch")[FUSION] is asked
