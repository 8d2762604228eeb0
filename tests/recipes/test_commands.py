"""Every recipe's command: composed, and accepted by what `main_ppo` checks before Ray starts."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from transformers import Qwen2Config
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from pcr_plugin.demo.tokenizer import build_tokenizer
from pcr_plugin.verl.refusals import ranks_of_a_replica
from pcr_plugin.verl_cpu import distribution
from tests.recipes.commands import FOLDER, RULES, SCRIPTS, Command, command_of

# Of the models' public configurations: attention heads, layers, experts.
SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": (14, 24, 0),
    "Qwen/Qwen2.5-1.5B-Instruct": (12, 28, 0),
    "Qwen/Qwen2-7B-Instruct": (28, 28, 0),
    "Qwen/Qwen2.5-7B": (28, 28, 0),
    "Qwen/Qwen3-8B": (32, 36, 0),
    "Qwen/Qwen3-30B-A3B": (32, 48, 128),
    "agentica-org/DeepScaleR-1.5B-Preview": (12, 28, 0),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (12, 28, 0),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": (28, 28, 0),
}
# 32 prompts of 5 answers do not divide among 64 ranks.
MORE_ROWS = ("actor_rollout_ref.actor.ppo_mini_batch_size=64",)
CASES = [(name, rule) for name in SCRIPTS for rule in RULES]


@pytest.fixture(scope="module", autouse=True)
def vllm_is_there() -> Iterator[None]:
    """veRL asks for the distribution `vllm` where it checks the rank of adapters."""
    distribution.install()
    yield
    distribution.uninstall()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Command]:
    folder = tmp_path_factory.mktemp("commands")
    # veRL reads the critic's model where it checks the critic.
    critic = folder / "critic"
    Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(critic)
    build_tokenizer([], size=259).save_pretrained(critic)
    return {
        (name, rule): command_of(SCRIPTS[name], folder, UPDATE_RULE=rule, CRITIC_PATH=str(critic))
        for name, rule in CASES
    }


@pytest.fixture(scope="module")
def composed(commands: dict[tuple[str, str], Command]) -> dict[tuple[str, str], DictConfig]:
    return {case: command.composed() for case, command in commands.items()}


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def config(request: Any, composed: dict[tuple[str, str], DictConfig]) -> DictConfig:
    return copy.deepcopy(composed[request.param])


def test_there_are_recipes() -> None:
    assert len(SCRIPTS) >= 11


@pytest.mark.parametrize("script", sorted(FOLDER.rglob("*.s[hb]*")), ids=lambda path: path.name)
def test_scripts_can_be_read_by_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_two_runs_of_a_recipe_differ_in_the_rule_alone(
    name: str, commands: dict[tuple[str, str], Command]
) -> None:
    stock, ours = (commands[name, rule] for rule in RULES)
    assert stock.module == ours.module == "verl.trainer.main_ppo"
    differ = [(a, b) for a, b in zip(stock.overrides, ours.overrides, strict=True) if a != b]
    keys = {override.split("=")[0] for pair in differ for override in pair}
    assert keys == {
        "actor_rollout_ref.actor.update_rule",
        "trainer.experiment_name",
        "trainer.default_local_dir",
        "+ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR",
    }
    assert ours.overrides.count("actor_rollout_ref.actor.update_rule=pcr") == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_key_is_given_twice(name: str, commands: dict[tuple[str, str], Command]) -> None:
    keys = [override.split("=")[0].lstrip("+") for override in commands[name, "pcr"].overrides]
    assert sorted(keys) == sorted(set(keys))


def test_what_main_ppo_checks(config: DictConfig) -> None:
    """Refusals of the rule are in it: the actor's configuration is ours."""
    rule = config.actor_rollout_ref.actor.update_rule
    validate_config(
        config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.engine.strategy.startswith("pcr:") == (rule == "pcr")


def test_what_workers_build(config: DictConfig) -> None:
    """Blocks that veRL makes objects of in its workers, where a wrong value ends the run late."""
    parts = config.actor_rollout_ref
    assert parts.ref.strategy == parts.actor.strategy
    assert omega_conf_to_dataclass(parts.rollout).name == "vllm"
    assert omega_conf_to_dataclass(config.algorithm).use_kl_in_reward is False
    assert omega_conf_to_dataclass(config.reward.sandbox_fusion).url is None


def test_batches_divide_among_the_ranks(config: DictConfig) -> None:
    parts, data = config.actor_rollout_ref, config.data
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    engine = omega_conf_to_dataclass(parts.actor).engine
    of_one_model = ranks_of_a_replica(engine)
    assert gpus % of_one_model == 0
    replicas = gpus // of_one_model
    rows = parts.actor.ppo_mini_batch_size * parts.rollout.n
    assert data.train_batch_size % parts.actor.ppo_mini_batch_size == 0
    assert rows % replicas == 0
    # Enough rows for two units of the variance on one rank, whatever their lengths.
    assert rows // replicas >= 2
    if need_critic(config):
        assert config.critic.ppo_mini_batch_size * config.critic.rollout_n % gpus == 0


def test_sequences_fit(config: DictConfig) -> None:
    parts = config.actor_rollout_ref
    longest = config.data.max_prompt_length + config.data.max_response_length
    for tokens in (
        parts.actor.ppo_max_token_len_per_gpu,
        parts.rollout.log_prob_max_token_len_per_gpu,
        parts.ref.log_prob_max_token_len_per_gpu,
    ):
        assert tokens >= longest
    assert parts.rollout.log_prob_use_dynamic_bsz
    assert parts.ref.log_prob_use_dynamic_bsz


def test_models_can_be_cut(config: DictConfig) -> None:
    parts = config.actor_rollout_ref
    heads, layers, experts = SHAPES[parts.model.path]
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    assert heads % parts.rollout.tensor_model_parallel_size == 0
    assert config.trainer.n_gpus_per_node % parts.rollout.tensor_model_parallel_size == 0
    if parts.actor.strategy != "megatron":
        return
    engine = parts.actor.megatron
    tensor, stages = engine.tensor_model_parallel_size, engine.pipeline_model_parallel_size
    of_expert = engine.expert_tensor_parallel_size or tensor
    assert heads % tensor == 0
    assert layers % stages == 0
    assert (experts > 0) == (engine.expert_model_parallel_size > 1)
    assert experts % engine.expert_model_parallel_size == 0
    assert gpus // stages % (engine.expert_model_parallel_size * of_expert) == 0
    for size in ("tensor", "pipeline", "expert"):
        key = f"{size}_model_parallel_size"
        assert parts.ref.megatron[key] == engine[key]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_recipe_on_64_gpus(name: str, tmp_path: Path) -> None:
    """As recipes/README.md says: `NNODES=8 NGPUS_PER_NODE=8`, and one argument of one recipe."""
    critic = tmp_path / "critic"
    Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(critic)
    build_tokenizer([], size=259).save_pretrained(critic)
    settings = {"NNODES": "8", "NGPUS_PER_NODE": "8", "CRITIC_PATH": str(critic)}
    more = MORE_ROWS if name == "lora_qwen3_8b" else ()
    page = (FOLDER / "README.md").read_text()
    assert " ".join(MORE_ROWS) in page
    config = command_of(SCRIPTS[name], tmp_path, *more, **settings).composed()
    assert config.trainer.nnodes * config.trainer.n_gpus_per_node == 64
    test_what_main_ppo_checks(config)
    test_batches_divide_among_the_ranks(config)
    test_models_can_be_cut(config)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.startswith("paper_")])
def test_recipes_of_the_paper_have_its_values(
    name: str, composed: dict[tuple[str, str], DictConfig]
) -> None:
    """Sections 3.1 and 6.1; the rule as section 4 has it, which is the preset `paper`."""
    config = composed[name, "pcr"]
    actor = config.actor_rollout_ref.actor
    assert actor.optim.lr == 1e-6
    assert actor.optim.weight_decay == 0.01
    assert config.data.train_batch_size == actor.ppo_mini_batch_size == 256
    assert config.data.max_response_length == 16384
    assert config.algorithm.adv_estimator == "grpo"
    assert config.algorithm.norm_adv_by_std_in_grpo is True
    assert actor.loss_agg_mode == "seq-mean-token-mean"
    rule = omega_conf_to_dataclass(actor).engine.update_rule
    assert rule.settings.preset == "paper"
    assert rule.settings.scope == "mlp"
    assert (rule.scale, rule.ema, rule.stability_floor) == ("absolute", 0.0, False)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gsm8k_qwen2_5_0_5b", "model.use_fused_kernels", True),
        ("gsm8k_qwen2_5_0_5b", "actor.use_prefix_grouper", True),
        ("gsm8k_qwen2_5_0_5b", "actor.use_kl_loss", False),
        ("deepscaler_1_5b_fsdp2", "actor.fsdp_config.ulysses_sequence_parallel_size", 2),
        ("distill_qwen_7b_megatron", "actor.megatron.context_parallel_size", 2),
        ("distill_qwen_7b_megatron", "model.lora.rank", 8),
        (
            "distill_qwen_7b_megatron",
            "actor.megatron.override_transformer_config.gradient_accumulation_fusion",
            True,
        ),
    ],
)
def test_what_no_recipe_may_have_is_refused(
    name: str, key: str, value: Any, composed: dict[tuple[str, str], DictConfig]
) -> None:
    """So these checks see the recipes; README.md names what is left out for this reason."""
    config = copy.deepcopy(composed[name, "pcr"])
    OmegaConf.update(config, f"actor_rollout_ref.{key}", value, force_add=True)
    with pytest.raises(Exception, match="is not possible"):
        validate_config(config, use_reference_policy=True, use_critic=False)


def test_an_argument_of_the_script_wins(tmp_path: Path) -> None:
    script = SCRIPTS["gsm8k_qwen2_5_0_5b"]
    preset, size = "actor_rollout_ref.actor.pcr.preset", "data.train_batch_size"
    command = command_of(script, tmp_path, f"{preset}=robust", f"{size}=512")
    config = command.composed()
    assert config.data.train_batch_size == 512
    assert config.actor_rollout_ref.actor.pcr.preset == "robust"


def test_settings_from_outside(tmp_path: Path) -> None:
    script = SCRIPTS["gsm8k_qwen2_5_0_5b"]
    settings = {
        "MODEL_PATH": "/models/mine",
        "NNODES": "2",
        "NGPUS_PER_NODE": "4",
        "DATA_DIR": "/data",
        "OUTPUT_DIR": "/out",
        "KL_LOSS_COEF": "0.01",
        "SEED": "7",
        "LOGGER": '["console","wandb"]',
    }
    config = command_of(script, tmp_path, **settings).composed()
    assert config.actor_rollout_ref.model.path == "/models/mine"
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (2, 4)
    assert config.data.train_files == "/data/gsm8k/train.parquet"
    name = "pcr_recipes/gsm8k_qwen2_5_0_5b-pcr-7"
    assert config.trainer.default_local_dir == f"/out/checkpoints/{name}"
    # As `run_ppo` puts it together for `ray.init`.
    ours = config.ray_kwargs.ray_init.runtime_env
    runtime_env = OmegaConf.merge(get_ppo_ray_runtime_env(config), ours)
    logs = runtime_env.env_vars.TENSORBOARD_DIR
    assert logs == f"/out/tensorboard_log/{name}"
    assert config.actor_rollout_ref.actor.kl_loss_coef == 0.01
    assert config.actor_rollout_ref.rollout.seed == config.data.seed == 7
    assert list(config.trainer.logger) == ["console", "wandb"]


def test_the_real_command_prints_the_configuration(tmp_path: Path) -> None:
    """As the pages say: `--cfg job`, through Hydra's own command line."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(
        ["bash", str(SCRIPTS["gsm8k_qwen2_5_0_5b"]), "--cfg", "job"],
        env=os.environ | {"PATH": programs, "DATA_DIR": "/data"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    config = OmegaConf.create(run.stdout[run.stdout.index("actor_rollout_ref:") :])
    assert config.actor_rollout_ref.actor.update_rule == "pcr"
    assert config.data.train_files == "/data/gsm8k/train.parquet"
