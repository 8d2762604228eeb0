"""`observe`: OpenRLHF's own update to the last bit, and the statistics of both gradients."""

import pytest

from tests.openrlhf.cases import CASES, RULES, Case
from tests.openrlhf.conftest import BY_NAME, Runs
from tests.openrlhf.records import Record
from tests.openrlhf.test_whole_run import METRICS

_OBSERVED = [case for case in CASES if case.rule == "observe"]
_OVER_STEPS = [case for case in _OBSERVED if case.calls > 1]
_RULE = RULES["observe"]
assert _RULE is not None
_EVERY = _RULE[1]["observe_every"]
# What a rule makes of both gradients, and the clock.
_OF_THE_RULE = {"alpha", "norm_final", "removed", "cos_final_sta", "beta_eff"}
_TIME = {"seconds"}


def of(runs: Runs, case: Case) -> list[tuple[Record, Record]]:
    """Every rank's records: stock and observed."""
    stock = case.name.replace("-observe", "-stock")
    return list(zip(runs.of(stock), runs.of(case.name), strict=True))


def statistics(status: dict[str, float]) -> dict[str, float]:
    """The metrics of ours, without those of single blocks."""
    found = {key.removeprefix("pcr/"): v for key, v in status.items() if key.startswith("pcr/")}
    return {key: value for key, value in found.items() if not key.startswith("block/")}


def without(status: dict[str, float], names: set[str]) -> dict[str, float]:
    """The metrics of ours but some."""
    return {key: value for key, value in statistics(status).items() if key not in names}


@pytest.mark.parametrize("case", _OBSERVED, ids=[case.name for case in _OBSERVED])
def test_every_step_is_the_stock_step_to_the_last_bit(runs: Runs, case: Case) -> None:
    for stock, observed in of(runs, case):
        left = [(step.weights, step.state) for step in observed.steps]
        assert left == [(step.weights, step.state) for step in stock.steps]
        assert len(left) == case.calls
        assert all(stock.after[name].equal(observed.after[name]) for name in stock.after)
        # The order of the rows is drawn in every call, and one more number after the last.
        assert observed.rows == stock.rows
        assert observed.ended == stock.ended
        for found, expected in zip(observed.statuses, stock.statuses, strict=True):
            assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("case", _OVER_STEPS, ids=[case.name for case in _OVER_STEPS])
def test_passes_are_added_to_some_steps_alone(runs: Runs, case: Case) -> None:
    extra = 2 if case.arguments["ds__zero_stage"] == 3 else 1
    for stock, observed in of(runs, case):
        for index, (plain, step) in enumerate(zip(stock.steps, observed.steps, strict=True)):
            times = 1 if index % _EVERY else 1 + extra
            assert step.forward_passes == times * plain.forward_passes
            found = statistics(observed.statuses[index])
            assert found["active"] == 1
            assert found.keys() == expected_names(found, measured=not index % _EVERY)


def expected_names(found: dict[str, float], *, measured: bool) -> set[str]:
    """Of a step's metrics: there is an alpha where there is a conflict."""
    if not measured:
        return {"active"}
    return set(METRICS) - (set() if found["conflict_rate"] else {"alpha"})


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["adam", "bf16_"])
def test_the_statistics_are_those_of_sum(runs: Runs, name: str, stage: int) -> None:
    """To the last bit: the passes are the same, in the same order."""
    own, other = (runs.of(f"{name}{stage}-{rule}")[0].statuses[0] for rule in ("observe", "sum"))
    alpha = {"alpha"}
    assert without(own, _TIME | alpha) == without(other, _TIME | alpha)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", ["dynamic", "offload"])
def test_the_statistics_are_those_of_pcr(runs: Runs, name: str, stage: int) -> None:
    """Also under dynamic batches on ZeRO-1 and 2, where the stock update loses micro-batches."""
    assert BY_NAME[f"zero{stage}-{name}"].rule == "pcr"
    own, other = runs.of(f"{name}{stage}-observe")[0].statuses[0], runs.of(f"zero{stage}-{name}")[0]
    expected = without(other.status, _TIME | _OF_THE_RULE)
    assert without(own, _TIME | _OF_THE_RULE) == pytest.approx(expected, rel=1e-6)
    assert own["pcr/alpha"] == pytest.approx(other.status["pcr/alpha"], rel=1e-6)
