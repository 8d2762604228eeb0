"""sdist and wheel: what is in them; they work beside a stock veRL in a clean environment."""

import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata

from pcr_plugin.version import __version__
from tests.release.distributions import ROOT, build, clean_environment, run

UNRELATED_APP = """
import sys
import hydra
from omegaconf import DictConfig

@hydra.main(version_base=None, config_path="conf", config_name="app")
def main(config: DictConfig) -> None:
    print(config.actor.width, sorted({"torch", "verl", "pcr_plugin"} & set(sys.modules)))

main()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def python(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of a clean environment with the wheel."""
    return clean_environment(tmp_path_factory.mktemp("clean") / "env", built[1])


def files_in_packages() -> set[str]:
    """Every file that the wheel must have."""
    return {
        str(path.relative_to(ROOT))
        for package in ("pcr_plugin", "hydra_plugins")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_the_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == files_in_packages()
    assert {"pcr_plugin/py.typed", "hydra_plugins/pcr_plugin_config/__init__.py"} <= packed
    # A file here would hide the Hydra plugins of all other packages.
    assert "hydra_plugins/__init__.py" not in packed


def test_the_wheel_s_metadata_are_valid_and_complete(built: tuple[Path, Path]) -> None:
    info = f"pcr_plugin-{__version__}.dist-info"
    with zipfile.ZipFile(built[1]) as wheel:
        metadata = Metadata.from_email(wheel.read(f"{info}/METADATA"), validate=True)
        licence = wheel.read(f"{info}/licenses/LICENSE").decode()
        declared = wheel.read(f"{info}/entry_points.txt").decode()
    assert str(metadata.version) == __version__
    assert metadata.license_expression == "Apache-2.0"
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence
    entry_points = ConfigParser()
    entry_points.read_string(declared)
    assert dict(entry_points["console_scripts"]) == {"pcr": "pcr_plugin.cli.main:main"}
    assert dict(entry_points["verl.plugins"]) == {
        "pcr": "pcr_plugin.verl.plugin",
        "verl_cpu": "pcr_plugin.verl_cpu.plugin",
    }


def test_the_sdist_has_the_packages_and_the_papers(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    papers = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"}
    added_by_the_format = {"PKG-INFO", ".gitignore"}
    assert names == files_in_packages() | papers | added_by_the_format


def test_the_wheel_passes_pcr_doctor_in_a_clean_environment(python: Path, tmp_path: Path) -> None:
    where = run([str(python), "-c", "import pcr_plugin; print(pcr_plugin.__file__)"], tmp_path)
    assert where.startswith(str(python.parents[1]))
    findings = run([str(python.with_name("pcr")), "doctor"], tmp_path)
    assert f"pcr-plugin {__version__}" in findings
    assert "[!!]" not in findings
    for good in ("veRL loads the plugin", "Hydra knows", "pcr:fsdp, pcr:fsdp2, pcr:megatron"):
        assert good in findings


def test_the_sdist_passes_where_there_is_no_megatron(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    python = clean_environment(tmp_path / "env", built[0])
    [packages] = tmp_path.glob("env/lib/python*/site-packages")
    missing = "raise ModuleNotFoundError(\"No module named 'megatron'\", name='megatron')"
    (packages / "megatron.py").write_text(missing)
    findings = run([str(python.with_name("pcr")), "doctor"], tmp_path)
    assert "engine backends pcr:fsdp, pcr:fsdp2 for" in findings
    assert "no engine here for strategy=megatron" in findings


def test_a_stock_veRL_beside_the_wheel_shows_the_keys(python: Path, tmp_path: Path) -> None:
    shown = run([str(python), "-m", "verl.trainer.main_ppo", "--cfg", "job"], tmp_path)
    actor = yaml.safe_load(shown)["actor_rollout_ref"]["actor"]
    assert actor["update_rule"] is None
    assert actor["pcr"]["variance"]["estimator"] == "micro_batch"


def test_an_unrelated_hydra_app_composes_as_without_the_wheel(python: Path, tmp_path: Path) -> None:
    """It even has a file with the name of one of veRL's."""
    (tmp_path / "conf" / "actor").mkdir(parents=True)
    (tmp_path / "conf" / "app.yaml").write_text("defaults:\n  - actor: dp_actor\n")
    (tmp_path / "conf" / "actor" / "dp_actor.yaml").write_text("width: 3\n")
    (tmp_path / "app.py").write_text(UNRELATED_APP)
    without = clean_environment(tmp_path / "without", None)
    assert "pcr-plugin" not in run([str(without), "app.py", "--info", "searchpath"], tmp_path)
    for arguments in (["--cfg", "all"], ["--info", "searchpath"], ["--info", "defaults"], []):
        given = [
            *arguments,
            "hydra.run.dir=.",
            "hydra.output_subdir=null",
            "hydra/job_logging=none",
        ]
        outputs = [run([str(each), "app.py", *given], tmp_path) for each in (python, without)]
        assert outputs[0] == outputs[1], arguments
    assert outputs[0].split() == ["3", "[]"]
