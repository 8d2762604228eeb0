"""Recipes with configurations of their own, and applications that have nothing to do with us."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import verl.trainer.config
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from omegaconf import DictConfig, OmegaConf
from verl.utils.config import omega_conf_to_dataclass

from tests.integration.recipes import ACTOR, RECIPE

VERL_FOLDER = Path(verl.trainer.config.__file__).parent
SEARCH_PATHS = ("pkg://verl.trainer.config", f"file://{VERL_FOLDER}")
FSDP = "verl.workers.config.FSDPActorConfig"
OURS = "pcr_plugin.verl.actor_config.PCRFSDPActorConfig"
ENGINES = ("dp", "megatron", "torchtitan", "veomni")


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def recipe(folder: Path, *search_path: str, body: str = "") -> Path:
    """A main configuration of its own that builds on veRL's."""
    listed = ", ".join(search_path)
    text = f"hydra:\n  searchpath: [{listed}]\ndefaults: [ppo_trainer, _self_]\n{body}"
    return write(folder, {"my_trainer.yaml": text})


def composed(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(folder), version_base=None):
        return compose("my_trainer", overrides=[*RECIPE, *overrides])


def own_actor(target: str, *, header: str = "") -> str:
    """An actor file of a recipe: veRL's with one value changed and one added."""
    text = (VERL_FOLDER / "actor/dp_actor.yaml").read_text()
    assert FSDP in text
    return f"{header}{text.replace(FSDP, target)}\nclip_ratio: 0.123\n"


@pytest.mark.parametrize("search_path", SEARCH_PATHS, ids=["pkg", "file"])
def test_a_recipe_with_its_own_main_folder(tmp_path: Path, search_path: str) -> None:
    folder = recipe(tmp_path, search_path)
    actor = composed(folder, f"{ACTOR}.update_rule=pcr", f"{ACTOR}.pcr.gate=false")
    built = omega_conf_to_dataclass(actor.actor_rollout_ref.actor)
    assert built.engine.strategy == "pcr:fsdp2"
    assert built.engine.update_rule.settings.gate is False


def test_a_recipe_that_switches_the_rule_on_in_its_own_file(tmp_path: Path) -> None:
    body = "actor_rollout_ref: {actor: {update_rule: pcr, pcr: {preset: robust}}}\n"
    folder = recipe(tmp_path, SEARCH_PATHS[0], body=body)
    built = omega_conf_to_dataclass(composed(folder).actor_rollout_ref.actor)
    assert built.engine.update_rule.settings.preset == "robust"


@pytest.mark.parametrize("engine", ENGINES)
def test_other_engines_in_a_recipe(tmp_path: Path, engine: str) -> None:
    folder = recipe(tmp_path, SEARCH_PATHS[0])
    actor = composed(folder, f"model_engine={engine}", f"{ACTOR}.update_rule=pcr")
    assert actor.actor_rollout_ref.actor.update_rule == "pcr"


@pytest.mark.parametrize("where", ["main folder", "search path"])
def test_a_recipe_s_own_actor_file_keeps_its_values(tmp_path: Path, where: str) -> None:
    files = {"actor/dp_actor.yaml": own_actor(FSDP)}
    if where == "main folder":
        folder = write(recipe(tmp_path, SEARCH_PATHS[0]), files)
    else:
        library = write(tmp_path / "library", files)
        folder = recipe(tmp_path / "main", f"file://{library}", SEARCH_PATHS[0])
    actor = composed(folder, f"{ACTOR}.update_rule=pcr").actor_rollout_ref.actor
    assert actor.clip_ratio == 0.123
    assert actor._target_ == OURS
    assert actor.pcr.preset == "paper"


def test_the_first_file_of_the_search_path_wins(tmp_path: Path) -> None:
    """As without us: veRL's own file comes first when its folder does."""
    library = write(tmp_path / "library", {"actor/dp_actor.yaml": own_actor(FSDP)})
    folder = recipe(tmp_path / "main", SEARCH_PATHS[0], f"file://{library}")
    actor = composed(folder, f"{ACTOR}.update_rule=pcr").actor_rollout_ref.actor
    assert actor.clip_ratio == 0.2
    assert actor._target_ == OURS


def test_a_search_path_from_the_command_line(tmp_path: Path) -> None:
    """It replaces the one in the main file, and its files are the recipe's too."""
    library = write(tmp_path / "library", {"actor/dp_actor.yaml": own_actor(FSDP)})
    folder = recipe(tmp_path / "main", SEARCH_PATHS[0])
    searched = f"hydra.searchpath=[file://{library},{SEARCH_PATHS[0]}]"
    actor = composed(folder, searched, f"{ACTOR}.update_rule=pcr").actor_rollout_ref.actor
    assert actor.clip_ratio == 0.123
    assert actor._target_ == OURS


@pytest.mark.parametrize("target", ["recipe.my.ActorConfig", "verl.workers.config.ActorConfig"])
def test_an_actor_file_of_another_class_is_left_alone(tmp_path: Path, target: str) -> None:
    files = {"actor/dp_actor.yaml": own_actor(target)}
    folder = write(recipe(tmp_path, SEARCH_PATHS[0]), files)
    actor = composed(folder).actor_rollout_ref.actor
    assert actor._target_ == target
    assert actor.clip_ratio == 0.123
    assert "update_rule" not in actor
    assert "pcr" not in actor


def test_a_package_directive_is_followed(tmp_path: Path) -> None:
    """`# @package` in a recipe's own file moves its content; ours must move with it."""
    header = "# @package elsewhere\n"
    files = {"actor/dp_actor.yaml": own_actor(FSDP, header=header)}
    folder = write(tmp_path, {**files, "my_trainer.yaml": "defaults: [actor: dp_actor]\n"})
    write(folder, {"actor/actor.yaml": "rollout_n: 1\n"})
    text = files["actor/dp_actor.yaml"].split("defaults:")[0] + "defaults: [actor, _self_]\n"
    write(folder, {"actor/dp_actor.yaml": f"{text}_target_: {FSDP}\n"})
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("my_trainer")
    assert config.elsewhere._target_ == OURS
    assert config.elsewhere.update_rule is None
    assert "actor" not in config


@pytest.mark.parametrize(
    "text",
    ["- a list\n- and no mapping\n", "{{ a template }}: [\n", "hydra: {searchpath: nothing}\n", ""],
    ids=["list", "template", "odd search path", "empty"],
)
def test_other_files_beside_the_main_one_do_not_matter(tmp_path: Path, text: str) -> None:
    folder = write(recipe(tmp_path, SEARCH_PATHS[0]), {"a_neighbour.yaml": text})
    assert composed(folder, f"{ACTOR}.update_rule=pcr").actor_rollout_ref.actor._target_ == OURS


def test_our_source_says_nothing_of_other_files(tmp_path: Path) -> None:
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra._internal.sources_registry import SourcesRegistry

    from hydra_plugins.pcr_plugin_config import PCRSearchPathPlugin

    search_path: ConfigSearchPath = ConfigSearchPathImpl()
    search_path.append("main", SEARCH_PATHS[0])
    for _ in range(2):  # Hydra's scan finds the plugin in the package and in its module
        PCRSearchPathPlugin().manipulate_search_path(search_path)
    assert [found.provider for found in search_path.get_path()] == ["pcr_plugin", "main"]
    entry = search_path.get_path()[0]
    assert entry.path is not None
    source = SourcesRegistry.instance().resolve("pcr-plugin")("pcr_plugin", entry.path)
    assert source.available()
    for name in ("dp_actor", "megatron_actor", "torchtitan_actor", "veomni_actor"):
        assert source.is_config(f"actor/{name}")
        assert source.is_config(f"actor/{name}.yaml")
    for other in ("actor/actor", "ref/dp_ref", "dp_actor", "critic/dp_critic", "ppo_trainer"):
        assert not source.is_config(other)
    assert source.is_config("pcr_plugin/check_in_driver")
    assert not source.is_group("actor")
    assert not source.is_group("pcr_plugin")
    assert source.list("actor", None) == []
    assert source.load_config("actor/dp_actor").header == {"package": None}


DUMP = """
import json, sys
if "hidden" in sys.argv:
    sys.modules["hydra_plugins"] = None  # as if nothing were installed
import verl
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
found = {}
for engine in ("dp", "megatron", "torchtitan", "veomni"):
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["model_engine=" + engine])
    found[engine] = OmegaConf.to_container(config)
json.dump(found, sys.stdout)
"""


def output_of(*command: str, cwd: Path | None = None) -> str:
    run = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, cwd=cwd
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_nothing_but_our_keys_differs_from_an_installation_without_us() -> None:
    with_us = json.loads(output_of("-c", DUMP))
    without = json.loads(output_of("-c", DUMP, "hidden"))
    assert with_us.keys() == without.keys() == set(ENGINES)
    for engine, config in with_us.items():
        actor = config["actor_rollout_ref"]["actor"]
        stock = without[engine]["actor_rollout_ref"]["actor"]
        assert "update_rule" not in stock
        assert actor.pop("update_rule", "missing") is None
        assert actor.pop("pcr")["preset"] == "paper"
        kind = stock.pop("_target_").rpartition(".")[2]
        assert actor.pop("_target_") == f"pcr_plugin.verl.actor_config.PCR{kind}"
        assert list(actor) == list(stock), "the order, too"
        assert config == without[engine]


APPLICATION = """
import sys
{imports}
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(config_path="conf", config_name="config", version_base=None)
def main(config):
    import json
    sources = [s.provider for s in HydraConfig.get().runtime.config_sources]
    loaded = [m for m in ("torch", "verl", "pcr_plugin") if m in sys.modules]
    from omegaconf import OmegaConf
    print(json.dumps([OmegaConf.to_container(config), sources, loaded]))

main()
"""


def application(folder: Path, *arguments: str, imports: str = "") -> list[Any]:
    """A Hydra application of somebody else's: its configuration, sources and loaded modules."""
    write(folder, {"app.py": APPLICATION.format(imports=imports)})
    shown = output_of("app.py", f"hydra.run.dir={folder}/out", *arguments, cwd=folder)
    result: list[Any] = json.loads(shown.strip().splitlines()[-1])
    return result


OWN_ACTORS = {
    "conf/config.yaml": "defaults: [actor: dp_actor]\n",
    "conf/actor/dp_actor.yaml": "name: Buster Keaton\n",
    "conf/actor/other.yaml": "name: Harold Lloyd\n",
}


def test_inert_in_an_application_without_verl(tmp_path: Path) -> None:
    config, sources, loaded = application(write(tmp_path, OWN_ACTORS))
    assert config == {"actor": {"name": "Buster Keaton"}}
    assert "pcr_plugin" not in sources
    assert loaded == []


@pytest.mark.parametrize("choice", ["dp_actor", "other"])
def test_inert_in_an_application_that_imports_verl_for_something_else(
    tmp_path: Path, choice: str
) -> None:
    folder = write(tmp_path, OWN_ACTORS)
    config, _, loaded = application(folder, f"actor={choice}", imports="import verl")
    expected = {"dp_actor": "Buster Keaton", "other": "Harold Lloyd"}[choice]
    assert config == {"actor": {"name": expected}}
    assert "verl" in loaded


def test_an_application_is_not_given_an_actor_that_it_has_not(tmp_path: Path) -> None:
    folder = write(tmp_path, {**OWN_ACTORS, "app.py": APPLICATION.format(imports="import verl")})
    command = [sys.executable, "app.py", "actor=megatron_actor"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert run.returncode != 0
    assert "Could not find 'actor/megatron_actor'" in run.stderr


def test_a_recipe_run_as_a_script_with_a_relative_search_path(tmp_path: Path) -> None:
    """As veRL's recipes are: `file://verl/trainer/config` from the root of a checkout."""
    (tmp_path / "verl/trainer").mkdir(parents=True)
    (tmp_path / "verl/trainer/config").symlink_to(VERL_FOLDER)
    main = "hydra: {searchpath: ['file://verl/trainer/config']}\ndefaults: [ppo_trainer, _self_]\n"
    folder = write(tmp_path / "recipe", {"conf/config.yaml": main})
    write(folder, {"app.py": APPLICATION.format(imports="import verl.utils.config")})
    arguments = [f"hydra.run.dir={folder}/out", f"{ACTOR}.update_rule=pcr"]
    # The script's own folder is the first entry of the path, so `verl` is the installed one.
    shown = output_of("recipe/app.py", *arguments, cwd=tmp_path)
    config, sources, _ = json.loads(shown.strip().splitlines()[-1])
    assert config["actor_rollout_ref"]["actor"]["update_rule"] == "pcr"
    assert sources[0] == "pcr_plugin"


def test_a_folder_from_the_command_line(tmp_path: Path) -> None:
    """`--config-dir` adds a folder behind the main one."""
    library = write(tmp_path / "library", {"actor/dp_actor.yaml": own_actor(FSDP)})
    folder = write(tmp_path, {"conf/config.yaml": "defaults: [actor: dp_actor, _self_]\n"})
    for part in ("actor/actor.yaml", "optim/fsdp.yaml", "engine/fsdp.yaml"):
        write(library, {part: (VERL_FOLDER / part).read_text()})
    config, _, _ = application(folder, "--config-dir", str(library), imports="import verl")
    assert config["actor"]["clip_ratio"] == 0.123
    assert config["actor"]["_target_"] == OURS


def test_our_keys_are_not_the_hydra_plugin_s_own_knowledge(tmp_path: Path) -> None:
    """The composed block can be merged and saved like any other."""
    config = composed(recipe(tmp_path, SEARCH_PATHS[0]))
    saved = OmegaConf.to_yaml(config)
    assert OmegaConf.create(saved) == config
