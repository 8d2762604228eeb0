"""One key, without `+`, in veRL's own application: what Hydra shows, and what comes of it."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import verl.workers.config as stock
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from verl.utils.config import omega_conf_to_dataclass

from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings
from pcr_plugin.verl import actor_config as ours
from tests.integration.recipes import ACTOR, composed

# model_engine -> veRL's class and ours
ENGINES = {
    "dp": (stock.FSDPActorConfig, ours.PCRFSDPActorConfig),
    "megatron": (stock.McoreActorConfig, ours.PCRMcoreActorConfig),
    "torchtitan": (stock.TorchTitanActorConfig, ours.PCRTorchTitanActorConfig),
    "veomni": (stock.VeOmniActorConfig, ours.PCRVeOmniActorConfig),
}
# Every key with a value that is not its default, as typed.
TYPED = {
    "preset": ("robust", "robust"),
    "scope": ("[mlp,lm_head]", ["mlp", "lm_head"]),
    "block": ("tensor", "tensor"),
    "alpha": ("0.5", 0.5),
    "variance.estimator": ("split_half", "split_half"),
    "variance.scale": ("relative", "relative"),
    "variance.ema": ("0.8", 0.8),
    "variance.probes": ("3", 3),
    "stability_floor": ("true", True),
    "gate": ("false", False),
    "min_cosine": ("0.1", 0.1),
    "passes": ("two_forward", "two_forward"),
    "combine_signals": ("true", True),
    "zero_advantage": ("run", "run"),
    "share_recomputation": ("false", False),
    "log_blocks": ("true", True),
    "observe_every": ("7", 7),
}


def actor(overrides: list[str], engine: str = "dp") -> DictConfig:
    """The actor's part, composed; for other engines without the recipe's FSDP strategy."""
    strategy = [] if engine == "dp" else [f"{ACTOR}.strategy={engine}"]
    return composed([f"model_engine={engine}", *strategy, *overrides]).actor_rollout_ref.actor


def test_every_key_has_a_case_here() -> None:
    keys = {f.name for f in dataclasses.fields(PCRSettings)} - {"variance"}
    keys |= {f"variance.{f.name}" for f in dataclasses.fields(VarianceSettings)}
    assert set(TYPED) == keys


@pytest.mark.parametrize("engine", ENGINES)
def test_every_key_is_known_without_a_plus(engine: str) -> None:
    typed = [f"{ACTOR}.pcr.{key}={text}" for key, (text, _) in TYPED.items()]
    config = actor([f"{ACTOR}.update_rule=pcr", *typed], engine)
    assert config.update_rule == "pcr"
    for key, (_, value) in TYPED.items():
        found = OmegaConf.select(config.pcr, key)
        assert found == value, key
        assert found != OmegaConf.select(actor([], engine).pcr, key), "a default proves nothing"


@pytest.mark.parametrize("engine", ENGINES)
def test_defaults_are_those_of_the_dataclass(engine: str) -> None:
    config = actor([], engine)
    assert config.update_rule is None
    shown = OmegaConf.to_container(config.pcr)
    assert isinstance(shown, dict)
    shown.pop("recipe")  # what our checks must know of the rest of the recipe
    assert shown == dataclasses.asdict(PCRSettings())
    theirs, our_class = ENGINES[engine]
    assert config._target_ == f"{our_class.__module__}.{our_class.__name__}"
    assert issubclass(our_class, theirs)


def test_the_deprecated_megatron_recipe_has_the_keys_too() -> None:
    strategy = f"{ACTOR}.strategy=megatron"
    config = composed([strategy, f"{ACTOR}.pcr.gate=false"], config_name="ppo_megatron_trainer")
    assert config.actor_rollout_ref.actor.pcr.gate is False
    assert config.actor_rollout_ref.actor._target_.endswith("PCRMcoreActorConfig")


@pytest.mark.parametrize("key", ["update_rul", "pcr.floor", "pcr.variance.decay", "pcr.recip"])
def test_an_unknown_key_is_hydra_s_own_error(key: str) -> None:
    with pytest.raises(ConfigCompositionException, match=rf"{key.split('.')[-1]}") as caught:
        actor([f"{ACTOR}.{key}=1"])
    assert f"Could not override '{ACTOR}.{key}'" in str(caught.value)


def test_facts_about_the_recipe_follow_it() -> None:
    assert actor([]).pcr.recipe == {"use_kl_in_reward": False, "distillation": False}
    typed = ["algorithm.use_kl_in_reward=True", "distillation.enabled=True"]
    assert actor(typed).pcr.recipe == {"use_kl_in_reward": True, "distillation": True}


def build(*overrides: str, resolve: bool = False) -> Any:
    config = composed(overrides)
    if resolve:
        OmegaConf.resolve(config)  # the driver does so before it hands the configuration on
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)


@pytest.mark.parametrize("resolve", [False, True])
def test_with_a_rule_the_engine_is_ours(resolve: bool) -> None:
    config = build(f"{ACTOR}.update_rule=pcr", f"{ACTOR}.pcr.preset=robust", resolve=resolve)
    assert type(config) is ours.PCRFSDPActorConfig
    assert config.strategy == "fsdp2"
    assert config.engine.strategy == "pcr:fsdp2"
    rule = config.engine.update_rule
    assert isinstance(rule, UpdateRule)
    assert (rule.name, rule.scale, rule.ema, rule.stability_floor) == (
        "pcr",
        "relative",
        0.9,
        True,
    )


def test_patterns_typed_as_a_list_reach_the_rule() -> None:
    config = build(f"{ACTOR}.update_rule=pcr", f"{ACTOR}.pcr.scope=['\\.mlp\\.',lm_head]")
    assert config.engine.update_rule.settings.scope == (r"\.mlp\.", "lm_head")


@pytest.mark.parametrize("resolve", [False, True])
def test_without_a_rule_the_engine_is_stock(resolve: bool) -> None:
    config = build(resolve=resolve)
    assert config.engine.strategy == "fsdp2"
    assert type(config.engine) is stock.FSDPEngineConfig
    assert not hasattr(config.engine, "update_rule")


def test_keys_without_a_rule_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    build()
    assert "update_rule=null" not in caplog.text
    build(f"{ACTOR}.pcr.gate=true", f"{ACTOR}.pcr.preset=robust")
    assert "update_rule=null" in caplog.text


def test_a_bad_value_is_refused_without_a_rule_too() -> None:
    with pytest.raises(Exception, match=r"pcr\.preset='robustt'"):
        build(f"{ACTOR}.pcr.preset=robustt")


def test_the_registry_gives_our_class_for_our_backend_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from pcr_plugin.verl.engine import TwoGradientEngine

    monkeypatch.setenv("VERL_ENGINE_DEVICE", "cuda")
    build(f"{ACTOR}.update_rule=pcr")
    found = EngineRegistry.get_engine_cls("language_model", "pcr:fsdp2")
    assert issubclass(found, TwoGradientEngine)
    assert issubclass(found, FSDPEngineWithLMHead)
    for backend in ("fsdp", "fsdp2"):
        plain = EngineRegistry.get_engine_cls("language_model", backend)
        assert plain is FSDPEngineWithLMHead
    build(f"{ACTOR}.update_rule=pcr")  # a second time, as validation and the worker do
    assert EngineRegistry.get_engine_cls("language_model", "pcr:fsdp2") is found


def reference_of(config: DictConfig) -> Any:
    """The reference's configuration object, as the worker builds it."""
    part = OmegaConf.to_container(config.actor_rollout_ref.ref, resolve=True)
    assert isinstance(part, dict)
    for name in ("micro_batch_size", "micro_batch_size_per_gpu", "max_token_len_per_gpu"):
        part[f"ppo_{name}"] = part.pop(f"log_prob_{name}")
    part["use_dynamic_bsz"] = part.pop("log_prob_use_dynamic_bsz")
    return omega_conf_to_dataclass(OmegaConf.create(part))


def test_reference_and_critic_stay_stock() -> None:
    config = composed([f"{ACTOR}.update_rule=pcr"])
    omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    reference = reference_of(config)
    assert type(reference) is stock.FSDPActorConfig
    assert reference.engine.strategy == "fsdp2"
    for part in (config.actor_rollout_ref.ref, config.critic):
        assert "update_rule" not in part
        assert "pcr_plugin" not in OmegaConf.to_yaml(part)


@pytest.mark.parametrize(
    "carry", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_the_rule_travels_with_the_configuration(carry: Any) -> None:
    config = build(f"{ACTOR}.update_rule=pcgrad")
    copied = carry(config)
    assert copied.engine.strategy == "pcr:fsdp2"
    assert copied.engine.update_rule == config.engine.update_rule
    assert copied.engine.update_rule.name == "pcgrad"


def verl_command(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_cfg_job_shows_the_keys_and_their_defaults(tmp_path: Path) -> None:
    shown = verl_command("--cfg", "job", "--package", ACTOR, f"hydra.run.dir={tmp_path}")
    config = OmegaConf.create(shown.partition("\n")[2])
    assert config.update_rule is None
    assert config.pcr.preset == "paper"
    assert config.pcr.variance.estimator == "micro_batch"
