"""The moving averages in OpenRLHF's own checkpoint: save, load, and the same next step."""

import pytest

from tests.openrlhf.cases import RESUMED
from tests.openrlhf.conftest import Runs
from tests.openrlhf.records import Record
from tests.support.distances import difference, norm


def of(runs: Runs, stage: int, name: str) -> Record:
    """A record of the first rank."""
    return runs.of(f"resumed{stage}-{name}")[0]


@pytest.mark.parametrize("stage", RESUMED)
def test_a_resumed_run_makes_the_step_that_would_have_come(runs: Runs, stage: int) -> None:
    whole, again = of(runs, stage, "whole"), of(runs, stage, "again")
    assert again.average == whole.average
    assert again.average["sums"]
    assert all(again.before[name].equal(whole.before[name]) for name in whole.before)
    assert all(again.after[name].equal(whole.after[name]) for name in whole.after)
    assert metrics(again) == metrics(whole)


@pytest.mark.parametrize("stage", RESUMED)
def test_without_its_averages_the_step_is_another(runs: Runs, stage: int) -> None:
    whole, anew = of(runs, stage, "whole"), of(runs, stage, "anew")
    assert metrics(anew)["pcr/alpha"] != metrics(whole)["pcr/alpha"]
    moved = norm(difference(whole.after, whole.before))
    assert norm(difference(anew.after, whole.after)) > 1e-4 * moved


@pytest.mark.parametrize("stage", RESUMED)
def test_a_rule_is_switched_on_in_the_middle_of_a_stock_run(runs: Runs, stage: int) -> None:
    stock, on = of(runs, stage, "stock"), of(runs, stage, "on")
    assert stock.kinds == ["ActorPPOTrainer"]
    assert on.kinds == ["TwoGradientTrainer"]
    assert not on.average["sums"]
    assert all(on.before[name].equal(stock.before[name]) for name in stock.before)
    assert on.status["pcr/active"] == 1


@pytest.mark.parametrize("stage", RESUMED)
def test_what_is_observed_goes_by_the_steps_before_the_checkpoint(runs: Runs, stage: int) -> None:
    """The first and the third step are measured, and this is the second."""
    stock, observed = of(runs, stage, "stock"), of(runs, stage, "observed")
    assert observed.kinds == ["ObservingTrainer"]
    assert all(observed.after[name].equal(stock.after[name]) for name in stock.after)
    assert metrics(observed) == {"pcr/active": 1.0}


@pytest.mark.parametrize("stage", RESUMED)
def test_a_rule_is_switched_off_again(runs: Runs, stage: int) -> None:
    whole, off = of(runs, stage, "whole"), of(runs, stage, "off")
    assert off.kinds == ["ActorPPOTrainer"]
    assert all(off.before[name].equal(whole.before[name]) for name in whole.before)
    assert not metrics(off)


def metrics(record: Record) -> dict[str, float]:
    """Of the rule, without the time it took."""
    named = record.status.items()
    return {key: v for key, v in named if key.startswith("pcr/") and key != "pcr/seconds"}
