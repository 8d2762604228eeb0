"""Imports point one way, and importing the package costs and needs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.source_tree import files, folder_of, imports, tree

# What each part of the framework-free package may import of the others: the folders follow the
# data, and nothing looks back.
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "fingerprint": {"version"},
    "config": set(),
    "blocks": set(),
    "gradients": set(),
    "statistics": set(),
    "rules": set(),
    "distributed": set(),
    "estimators": {"gradients", "statistics"},
    "passes": {"estimators", "gradients"},
    "metrics": {"rules"},
    "weightings": {"config"},
    "update": {
        *("blocks", "config", "estimators", "gradients", "metrics", "passes", "rules"),
        *("statistics", "weightings"),
    },
}
# Bindings to a host; they may import everything above, and nobody may import them.
HOSTS = ("verl", "verl_cpu", "openrlhf")
# What a user starts; imported by nobody but each other. The command line looks hosts up when it
# runs a command that needs one; the demo is a run of veRL on the CPU; plots read logs.
APPLICATIONS = ("cli", "demo", "plots")
OF_A_HOST = {"demo": "verl_cpu"}
# Imports of other packages, where they are restricted.
THIRD_PARTY: dict[str, set[str]] = {
    "version": set(),
    "fingerprint": set(),
    "config": set(),
    "blocks": set(),
    "rules": {"torch"},
    "statistics": {"torch"},
    "gradients": {"torch"},
    "estimators": {"torch"},
    "passes": {"torch"},
    "metrics": {"torch"},
    "weightings": {"torch", "torchjd"},
    "update": {"torch"},
    "distributed": {"torch"},
    "plots": {"matplotlib", "tensorboard", "yaml"},
}
# Folders of an application in the order of its data; each imports only what comes before it.
IN_ORDER = {"plots": ("logs", "runs", "tables", "figures", "report")}
PACKAGE_FILES = files("pcr_plugin")


def in_fresh_interpreter(script: str) -> str:
    """Output of a script; fails the test if the script fails."""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def own(module: str) -> str | None:
    """`rules` for `pcr_plugin.rules.decision`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pcr_plugin" and len(parts) > 1 else None


def foreign(module: str) -> str | None:
    """The distribution of an import that is neither ours nor the standard library's."""
    top = module.split(".")[0]
    return None if top in sys.stdlib_module_names or top == "pcr_plugin" else top


def test_every_part_of_the_package_has_a_rule_here() -> None:
    parts = {folder_of(file) for file in PACKAGE_FILES} - {"__init__"}
    assert parts <= {*MAY_IMPORT, *HOSTS, *APPLICATIONS}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_import_only_what_comes_before_them(part: str) -> None:
    for file in PACKAGE_FILES:
        if folder_of(file) == part:
            for found in imports(file):
                target = own(found.module)
                assert target in {None, part, *MAY_IMPORT[part]}, f"{file} imports {found.module}"


@pytest.mark.parametrize("part", IN_ORDER)
def test_folders_of_an_application_follow_the_data(part: str) -> None:
    order = IN_ORDER[part]
    for file in PACKAGE_FILES:
        if folder_of(file) == part and len(file.parts) > 3:
            before = order[: order.index(file.parts[2]) + 1]
            for found in imports(file):
                if own(found.module) is not None:
                    assert own(found.module) == part, f"{file} imports {found.module}"
                    target = found.module.split(".")[2:3]
                    assert not target or target[0] in before, f"{file} imports {found.module}"


@pytest.mark.parametrize("part", THIRD_PARTY)
def test_third_party_imports(part: str) -> None:
    for file in PACKAGE_FILES:
        if folder_of(file) == part:
            for found in imports(file):
                assert foreign(found.module) in {None, *THIRD_PARTY[part]}, f"{file}: {found}"


def test_nobody_imports_a_host() -> None:
    for file in PACKAGE_FILES:
        part = folder_of(file)
        for found in imports(file):
            target = own(found.module)
            if target in HOSTS and target != part:
                allowed = OF_A_HOST.get(part) == target or (part in APPLICATIONS and found.deferred)
                assert allowed, f"{file} imports {found.module}"


def test_nobody_imports_an_application() -> None:
    for file in PACKAGE_FILES:
        for found in imports(file):
            if own(found.module) in APPLICATIONS:
                assert folder_of(file) in APPLICATIONS, f"{file} imports {found.module}"


def test_one_file_calls_torch_distributed() -> None:
    """Elsewhere only its types may be named; a collective hidden in a corner deadlocks."""
    for file in PACKAGE_FILES:
        if file == Path("pcr_plugin/distributed.py"):
            continue
        for found in imports(file):
            if found.module.startswith("torch.distributed"):
                types = ("torch.distributed.tensor", "torch.distributed.fsdp")
                assert found.module.startswith(types), f"{file}: {found}"
        chains = [ast.unparse(n) for n in ast.walk(tree(file)) if isinstance(n, ast.Attribute)]
        assert not [chain for chain in chains if chain.startswith("torch.distributed")], file


def test_the_hydra_plugin_imports_hydra_alone_until_it_is_asked() -> None:
    for file in files("hydra_plugins"):
        for found in imports(file):
            if not found.deferred:
                top = foreign(found.module)
                assert own(found.module) is None, f"{file} imports {found.module}"
                assert top in {None, "hydra", "omegaconf", "hydra_plugins"}, f"{file}: {found}"


def test_importing_the_package_imports_no_torch() -> None:
    in_fresh_interpreter(
        "import sys, pcr_plugin\n"
        "assert pcr_plugin.__version__\n"
        "heavy = {'torch', 'numpy', 'hydra', 'omegaconf', 'verl', 'ray', 'transformers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )


def test_the_framework_free_part_brings_nothing_but_torch() -> None:
    """Beside torch and what torch itself brings, only our modules and the standard library."""
    in_fresh_interpreter(
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import pcr_plugin.rules, pcr_plugin.statistics\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "foreign = new - sys.stdlib_module_names - {'pcr_plugin', 'torch'}\n"
        "assert not foreign, foreign\n"
        "parts = {n.split('.')[1] for n in sys.modules if n.startswith('pcr_plugin.')}\n"
        "assert parts == {'rules', 'statistics', 'version'}, parts\n"
    )


def test_settings_need_no_torch() -> None:
    in_fresh_interpreter(
        "import sys, pcr_plugin.config, pcr_plugin.blocks\n"
        "pcr_plugin.config.resolve('pcr', pcr_plugin.config.PCRSettings())\n"
        "assert 'torch' not in sys.modules\n"
    )


def test_a_step_needs_no_host() -> None:
    """The whole framework-free part works where no host is installed."""
    in_fresh_interpreter(
        "import sys\n"
        "for name in ('verl', 'ray', 'hydra', 'omegaconf', 'tensordict', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "import pcr_plugin.update, pcr_plugin.distributed, pcr_plugin.cli.main\n"
        "import pcr_plugin.verl, pcr_plugin.verl.fsdp2_gradients\n"
    )


def test_public_names_are_there_and_no_others() -> None:
    import pcr_plugin

    for name in pcr_plugin.__all__:
        assert getattr(pcr_plugin, name) is not None
    assert set(pcr_plugin._HOME) == set(pcr_plugin.__all__) - {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'resolve_all'"):
        _ = pcr_plugin.resolve_all
