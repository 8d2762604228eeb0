"""Every recipe's command: composed, and accepted by what `main_ppo` checks before Ray starts."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.utils.config import omega_conf_to_dataclass, validate_config

from tests.recipes.checks import CHECKS, accepted
from tests.recipes.commands import FOLDER, RULES, SCRIPTS, Command, command_of
from tests.recipes.pages import PAGES, keys_in_text, name_of, overrides_in_text

pytestmark = pytest.mark.usefixtures("vllm_is_there")

# 32 prompts of 5 answers do not divide among 64 ranks.
MORE_ROWS = ("actor_rollout_ref.actor.ppo_mini_batch_size=64",)
CASES = [(name, rule) for name in SCRIPTS for rule in RULES]


@pytest.fixture(scope="module")
def commands(
    tmp_path_factory: pytest.TempPathFactory, critic: Path
) -> dict[tuple[str, str], Command]:
    folder = tmp_path_factory.mktemp("commands")
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


def keys_of(block: dict[str, Any], above: str = "") -> Iterator[str]:
    """All keys of a configuration, those of blocks too, each with a dot before it."""
    for key, value in block.items():
        yield f"{above}.{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{above}.{key}")


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


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_recipe(check: Callable[[DictConfig], None], config: DictConfig) -> None:
    check(config)


@pytest.mark.parametrize(
    ("recipe", "override"),
    [pytest.param(*each, id="-".join(each)) for page in PAGES for each in overrides_in_text(page)],
)
def test_an_override_in_the_text_of_a_page(
    recipe: str, override: str, composed: dict[tuple[str, str], DictConfig]
) -> None:
    """That stands in no command: as if it were behind the script of the recipe."""
    config = copy.deepcopy(composed[recipe, "pcr"])
    given = OverridesParser.create().parse_override(override)
    OmegaConf.update(config, given.key_or_group, given.value(), force_add=given.is_add())
    accepted(config)


def test_overrides_are_found_in_the_text() -> None:
    found = [override for page in PAGES for _, override in overrides_in_text(page)]
    assert len(found) >= 11
    assert "actor_rollout_ref.actor.megatron.virtual_pipeline_model_parallel_size=2" in found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_keys_in_the_text_of_a_page(
    page: Path, composed: dict[tuple[str, str], DictConfig]
) -> None:
    config = composed["gsm8k_qwen2_5_0_5b", "pcr"]
    keys = list(keys_of(OmegaConf.to_container(config, resolve=False)))
    for named in keys_in_text(page):
        assert any(key.endswith(f".{named}") for key in keys), named


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_recipe_on_64_gpus(name: str, tmp_path: Path, critic: Path) -> None:
    """As recipes/README.md says: `NNODES=8 NGPUS_PER_NODE=8`, and one argument of one recipe."""
    settings = {"NNODES": "8", "NGPUS_PER_NODE": "8", "CRITIC_PATH": str(critic)}
    more = MORE_ROWS if name == "lora_qwen3_8b" else ()
    page = (FOLDER / "README.md").read_text()
    assert " ".join(MORE_ROWS) in page
    config = command_of(SCRIPTS[name], tmp_path, *more, **settings).composed()
    assert config.trainer.nnodes * config.trainer.n_gpus_per_node == 64
    accepted(config)


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


@pytest.mark.parametrize("output", ["out", "./out", "../out", "/out"])
def test_what_is_written_has_an_absolute_path(output: str, tmp_path: Path) -> None:
    """A Ray actor has a folder of its own."""
    command = command_of(SCRIPTS["gsm8k_qwen2_5_0_5b"], tmp_path, OUTPUT_DIR=output)
    values = dict(override.split("=", 1) for override in command.overrides)
    logs = "+ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR"
    for key in (logs, "trainer.default_local_dir"):
        assert Path(values[key]).is_absolute()
        assert Path(values[key]).is_relative_to(tmp_path / output)


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
