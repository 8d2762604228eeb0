"""Builds the distributions, and environments in which nothing of the source tree is seen."""

import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
# veRL, Hydra and torch of the environment that runs the tests.
HOST_PACKAGES = [path for path in sys.path if path.endswith("site-packages")]


def run(command: list[str], cwd: Path) -> str:
    """Output of a command that must succeed, with nothing of the tests' environment.

    Args:
        command: program and arguments.
        cwd: where it runs; not the source tree, which Python would put on its path.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(place: Path) -> tuple[Path, Path]:
    """The sdist of the source tree and the wheel that is built from the unpacked sdist.

    Args:
        place: an empty folder.
    """
    build_with_hatchling(ROOT, "sdist", place)
    [sdist] = place.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "unpacked", filter="data")
    [source] = (place / "unpacked").iterdir()
    build_with_hatchling(source, "wheel", place)
    [wheel] = place.glob("*.whl")
    return sdist, wheel


def build_with_hatchling(source: Path, target: str, place: Path) -> None:
    """Build `sdist` or `wheel` of a source tree into a folder."""
    run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(place)], source)


def clean_environment(place: Path, distribution: Path | None) -> Path:
    """A new virtual environment beside the packages of this one, and its Python.

    The `.pth` file makes the packages importable but not those that are installed as editable,
    so of ours only what is installed here is seen.

    Args:
        place: where the environment is made.
        distribution: what is installed in it; `None` for nothing.
    """
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    [packages] = place.glob("lib/python*/site-packages")
    (packages / "host.pth").write_text("\n".join(HOST_PACKAGES))
    if distribution is not None:
        install = ["install", "--no-deps", "--no-index", "--no-build-isolation"]
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        run([*pip, *install, str(distribution)], place)
    return python
