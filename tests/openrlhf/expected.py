"""What the oracle says about a case."""

from collections.abc import Sequence
from functools import partial

from tests.distributed.expected import blocks_of
from tests.distributed.inputs import Inputs
from tests.distributed.probing import directions, probed
from tests.openrlhf.cases import PROBES, RULES, Case
from tests.openrlhf.records import Record
from tests.oracle.gradients import unit_gradients
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


def units_of(case: Case, records: Sequence[Record]) -> list[list[int]]:
    """The rows of every unit: a rank's micro-batch, all ranks' every other one, or a row."""
    if case.rule == "sequences":
        return [[row] for record in records for rows in record.rows for row in rows]
    if case.rule != "split_half":
        return [rows for record in records for rows in record.rows]
    return [
        [row for record in records for rows in record.rows[half::2] for row in rows]
        for half in (0, 1)
    ]


def expected(case: Case, records: Sequence[Record], inputs: Inputs) -> Step:
    """The step that a case should have made.

    Args:
        case: of one optimizer step.
        records: of all ranks.
        inputs: what it was run on.
    """
    architecture = MODELS[case.model]
    gradients = unit_gradients(
        inputs.weights[case.model],
        architecture,
        inputs.batches[case.batch],
        units_of(case, records),
        Objective(kl="k2", entropy=case.entropy),
    )
    blocks = blocks_of(architecture, "mlp")
    sketch = None
    if case.rule == "sequences":
        first = partial(directions, probes=PROBES, step=1)
        sketch = partial(probed, directions=first)
    return step(gradients, blocks, _RULES[case.rule], case.beta, sketch=sketch)
