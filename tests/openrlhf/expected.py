"""What the oracle says about a case."""

from collections.abc import Sequence
from functools import cache, partial

from tests.distributed.expected import blocks_of
from tests.distributed.inputs import Inputs
from tests.distributed.probing import directions, probed
from tests.openrlhf.cases import PROBES, RULES, Case
from tests.openrlhf.records import Record
from tests.oracle.gradients import Unit, unit_gradients
from tests.oracle.objective import Objective
from tests.oracle.rule import ROBUST, Rule, Step, step
from tests.support.tiny_model import MODELS

_RULES = {
    "stock": Rule(name="sum"),
    "sum": Rule(name="sum"),
    "pcr": Rule(name="pcr"),
    "robust": ROBUST,
    "two_forward": Rule(name="pcr"),
    "split_half": Rule(name="pcr"),
    "observe": Rule(name="sum"),
    "sequences": Rule(name="pcr"),
    "pcgrad": Rule(name="pcgrad"),
    "soft": Rule(name="soft", alpha=0.3),
}
assert _RULES.keys() == RULES.keys()


_Units = tuple[tuple[int, ...], ...]


def units_of(case: Case, records: Sequence[Record]) -> _Units:
    """The rows of every unit: a rank's micro-batch, all ranks' every other one, or a row."""
    if case.rule == "sequences":
        return tuple((row,) for record in records for rows in record.rows for row in rows)
    if case.rule != "split_half":
        return tuple(tuple(rows) for record in records for rows in record.rows)
    return tuple(
        tuple(row for record in records for rows in record.rows[half::2] for row in rows)
        for half in (0, 1)
    )


class Oracle:
    """The dense float64 model on the inputs; each gradient is computed once.

    Args:
        inputs: what the cases are run on.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._gradients = cache(self._compute)

    def step(self, case: Case, records: Sequence[Record]) -> Step:
        """What a case should have made.

        Args:
            case: of one optimizer step.
            records: of all ranks.
        """
        objective = Objective(kl="k2", entropy=case.entropy)
        units = self._gradients(case.model, case.batch, units_of(case, records), objective)
        blocks = blocks_of(MODELS[case.model], "mlp")
        sketch = None
        if case.rule == "sequences":
            first = partial(directions, probes=PROBES, step=1)
            sketch = partial(probed, directions=first)
        return step(units, blocks, _RULES[case.rule], case.beta, sketch=sketch)

    def _compute(self, model: str, batch: str, units: _Units, objective: Objective) -> list[Unit]:
        weights, rows = self._inputs.weights[model], self._inputs.batches[batch]
        return unit_gradients(weights, MODELS[model], rows, units, objective)
