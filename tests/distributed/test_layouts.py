"""The same mini-batch, cut in other ways."""

import pytest

from tests.distributed.cases import ACCUMULATION, CASES
from tests.distributed.conftest import Runs
from tests.distributed.records import StepRecord

# Another order of float32 sums over the same tokens: 2**-24 a term, some dozens of terms.
REORDERED = 1e-6
TRAINED = [
    pytest.param(case.name, ranks, id=f"{case.name}-{ranks}")
    for case in CASES
    for ranks in case.ranks
    if ranks > 1 and not case.fails
]


def _accumulated(runs: Runs) -> list[StepRecord]:
    return [runs.of(f"{recipe.name}-sum")[0].steps[0] for recipe in ACCUMULATION]


def test_accumulation_does_not_change_the_two_gradients(runs: Runs) -> None:
    whole, *parts = _accumulated(runs)
    assert [len(step.units) for step in (whole, *parts)] == [1, 2, 4]
    for step in parts:
        for name in ("pcr/norm_pla", "pcr/norm_sta", "pcr/cos"):
            assert step.metrics[name] == pytest.approx(
                whole.metrics[name], rel=REORDERED, abs=REORDERED
            )


def test_accumulation_does_not_change_the_update(runs: Runs) -> None:
    whole, *parts = _accumulated(runs)
    for step in parts:
        for name, gradient in whole.gradient.items():
            difference = float((step.gradient[name] - gradient).norm())
            assert difference < 2 * REORDERED * float(gradient.norm()), name


@pytest.mark.parametrize("variant", ["paper", "robust_beta"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("recipe", ["plain", "flat", "original"])
def test_alpha_depends_neither_on_ranks_nor_on_sharding(
    recipe: str, ranks: int, variant: str, runs: Runs
) -> None:
    """FSDP2 and both modes of FSDP1 against one process: the same units, only distributed."""
    alone = runs.of(f"plain-{variant}", 1)[0].steps[0]
    spread = runs.of(f"{recipe}-{variant}", ranks)
    units = [unit for record in spread for unit in record.steps[0].units]
    assert sorted(units) == sorted(alone.units)
    alphas = {name: value for name, value in alone.metrics.items() if name.endswith("/alpha")}
    assert len(alphas) > 1
    for name, value in alphas.items():
        assert spread[0].steps[0].metrics[name] == pytest.approx(value, rel=REORDERED)


@pytest.mark.parametrize(("name", "ranks"), TRAINED)
def test_ranks_agree_to_the_last_bit(name: str, ranks: int, runs: Runs) -> None:
    """On the weights, and on every number that the weights of the blocks come from."""
    first, *others = runs.of(name, ranks)
    for other in others:
        for mine, theirs in zip(first.steps, other.steps, strict=True):
            assert mine.digest == theirs.digest
            # Compared as text: a NaN is equal to itself.
            assert repr(mine.average) == repr(theirs.average)
            ours = {n: v for n, v in mine.metrics.items() if n.startswith("pcr/")}
            ours.pop("pcr/seconds", None)  # each rank has its own clock
            assert all(repr(theirs.metrics[n]) == repr(v) for n, v in ours.items())
