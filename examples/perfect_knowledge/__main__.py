"""Is there anything to gain from knowing the noise? See docs/theory.md.

python -m examples.perfect_knowledge
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from platform import python_version

import torch

from examples.perfect_knowledge.knowledge import RULES, STOCK
from examples.perfect_knowledge.training import Outcome, train
from examples.study.fronts import on_front
from pcr_plugin.plots.tables.statistics import estimate

# Of stock, to have its front; the others where beta is small, and where it is not.
STOCK_BETAS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6)
BETAS = (0.01, 0.2)
SEEDS = range(5)
STEPS = 200
# (rule, beta) to one outcome per seed.
Outcomes = Mapping[tuple[str, float], Sequence[Outcome]]


def run(
    stock_betas: Sequence[float], betas: Sequence[float], seeds: Sequence[int], steps: int
) -> Outcomes:
    """All rules.

    Args:
        stock_betas: KL coefficients of stock, at least two.
        betas: of the other rules.
        seeds: the same under every rule.
        steps: of a run.
    """
    return {
        (rule, beta): [train(RULES[rule], beta, seed, steps) for seed in seeds]
        for rule in RULES
        for beta in (stock_betas if rule == STOCK else betas)
    }


def table(found: Outcomes) -> str:
    """Markdown: means over seeds, and what is forgotten against stock where stock earns as much.

    Args:
        found: see `run`.
    """
    head = ["rule", "β", "reward", "forgotten", "against stock at the same reward"]
    lines = [head, ["---"] * len(head)]
    for (rule, beta), outcomes in found.items():
        rewards, forgotten = zip(*outcomes, strict=True)
        cells = [_shown(rewards), _shown(forgotten)]
        cells.append("" if rule == STOCK else _against_stock(found, outcomes))
        lines.append([rule, f"{beta:g}", *cells])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _against_stock(found: Outcomes, outcomes: Sequence[Outcome]) -> str:
    """A factor, its mean over seeds on a logarithmic scale, and how many seeds stock can match."""
    fronts = zip(*(found[key] for key in found if key[0] == STOCK), strict=True)
    gaps = []
    for own, front in zip(outcomes, fronts, strict=True):
        prices = [(one.reward, math.log(one.forgotten)) for one in reversed(front)]
        theirs = on_front(own.reward, prices)
        if theirs is not None:
            gaps.append(math.log(own.forgotten) - theirs)
    mean = estimate(gaps)
    if mean is None:
        return "no such reward"
    factor, error = math.exp(mean.mean), mean.error or 0.0
    return f"{factor:.2f} ± {factor * error:.2f} ({mean.count} seeds)"


def _shown(values: Sequence[float]) -> str:
    found = estimate(values)
    assert found is not None
    return f"{found.mean:.3f}" + (f" ± {found.error:.3f}" if found.error is not None else "")


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    print(f"{date.today().isoformat()}, Python {python_version()}, torch {torch.__version__}\n")
    print(table(run(STOCK_BETAS, BETAS, SEEDS, STEPS)))


if __name__ == "__main__":
    main()
