"""Counts the collectives of 1, 2 and 4 ranks, checks the formula with them, and models the rest.

    VERL_PLATFORM=cpu python -m benchmarks.scaling --out docs

writes `scaling.md` and, with every number that was measured, `scaling.json` into the folder.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import check_device, machine, today, versions
from benchmarks.scaling.page import page
from benchmarks.scaling.sizes import RANKS
from tests.support.launch import run_ranks


def measure(small: bool) -> dict[str, Any]:
    """Run every number of ranks.

    Args:
        small: the counts alone.

    Returns:
        Number of ranks to what the first one found.
    """
    found = {}
    for ranks in RANKS:
        with tempfile.TemporaryDirectory() as folder:
            words = ["small"] if small else []
            run_ranks("benchmarks.scaling.worker", ranks, Path(folder), arguments=words)
            found[str(ranks)] = json.loads((Path(folder) / "found.json").read_text())
    return found


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--small", action="store_true", help="counts alone, no seconds")
    given = parser.parse_args()
    check_device("cpu")
    report = {
        "command": " ".join(["VERL_PLATFORM=cpu python -m benchmarks.scaling", *sys.argv[1:]]),
        "date": today(),
        "machine": machine(threads=1),
        "versions": versions(["torch", "verl", "transformers"]),
        "ranks": measure(given.small),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "scaling.json").write_text(json.dumps(report, indent=2) + "\n")
    (given.out / "scaling.md").write_text(page(report))
    print((given.out / "scaling.md").read_text())


if __name__ == "__main__":
    main()
