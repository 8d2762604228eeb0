"""The measurements of docs/theory.md.

python -m examples.same_sample_bias
"""

from datetime import date
from platform import python_version

import torch

from examples.same_sample_bias import grpo, shared_scores, tables


def main() -> None:
    """Measure and print."""
    print(f"{date.today().isoformat()}, Python {python_version()}, torch {torch.__version__}\n")
    print(tables.without_conflict(shared_scores.rows()))
    rows = list(grpo.rows())
    print(tables.of_training(rows))
    print(tables.of_cosines(rows))
    print(tables.of_units(rows))


if __name__ == "__main__":
    main()
