"""Cases in which one of the gradients, or both, is zero or not finite."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe
from tests.distributed.records import CaseRecord
from tests.distributed.running import run_case
from tests.distributed.variants import STOCK

STRATEGIES = ("fsdp", "fsdp2")
ZERO_VARIANTS = ("paper", "robust", "paper_halves", "robust_halves", "literal")
# Strategy and variant; the last one needs one forward pass.
ZEROS = (
    *((strategy, variant) for strategy in STRATEGIES for variant in ZERO_VARIANTS),
    ("fsdp2", "robust_halves_combined"),
)
BROKEN_VARIANTS = ("robust", "robust_halves")
# Batches of which veRL skips the step. The NaN is in the surrogate or in the KL, always on the
# last rank alone.
BROKEN = ("poisoned", "infinite", "unknown_reference")


def no_plasticity(strategy: str) -> Recipe:
    """All answers of a group are equally good: p is zero; then a common step."""
    return Recipe(
        name=f"no_plasticity_{strategy}",
        strategy=strategy,
        batches=("no_advantages", "mixed"),
        learning_rate=1e-2,
    )


def no_gradient(strategy: str) -> Recipe:
    """The same before the policy has left the reference: s is zero too."""
    return Recipe(
        name=f"no_gradient_{strategy}",
        strategy=strategy,
        batches=("no_advantages",),
        learning_rate=1e-2,
        on_policy=True,
    )


def sound(strategy: str) -> Recipe:
    """Two steps."""
    return Recipe(
        name=f"sound_{strategy}",
        strategy=strategy,
        batches=("mixed", "second"),
        learning_rate=1e-2,
    )


def broken(strategy: str, batch: str) -> Recipe:
    """The same two steps with a broken one between them."""
    return Recipe(
        name=f"broken_{batch}_{strategy}",
        strategy=strategy,
        batches=("mixed", batch, "second"),
        learning_rate=1e-2,
    )


def _cases() -> list[Case]:
    cases = [
        Case(recipe=recipe, variant=variant)
        for strategy, variant in (*((s, STOCK) for s in STRATEGIES), *ZEROS)
        for recipe in (no_plasticity(strategy), no_gradient(strategy))
    ]
    for strategy in STRATEGIES:
        for recipe in (sound(strategy), *(broken(strategy, batch) for batch in BROKEN)):
            cases += [Case(recipe=recipe, variant=v) for v in BROKEN_VARIANTS]
    return cases


def _run(case: Case, inputs: Inputs, folder: Path) -> CaseRecord:
    return run_case(case, inputs)


# Name to function and the numbers of ranks, as `scenarios.SCENARIOS` has them.
DEGENERATE: dict[str, tuple[Callable[[Inputs, Path], CaseRecord], tuple[int, ...]]] = {
    case.name: (partial(_run, case), case.ranks) for case in _cases()
}
