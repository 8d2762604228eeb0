"""What does not fit the scheme of one engine that makes a few steps."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pcr_plugin.estimators import Objective
from tests.distributed.inputs import Inputs
from tests.distributed.variants import STOCK
from tests.megatron.cases import MOST, PLAIN, SCALED, SHARDED, TENSOR, MegatronCase, cases_of
from tests.megatron.records import MegatronRecord
from tests.megatron.router_cases import INTERRUPTED
from tests.megatron.running import build, remembered, run_case, run_step
from tests.support.megatron_cpu import exactly

_SCALE, _SMALLER, _TOO_LARGE = 2.0**10, 2.0**8, 2.0**40
_STEPS = replace(SCALED, batches=("even", "even"))


def overflow(inputs: Inputs) -> MegatronRecord:
    """fp16 with a loss scale that overflows at first, and is then the right one.

    Returns:
        Two steps at the right scale; then the first of them on engines of their own that have never
        overflown, the last at a smaller scale. The error is that of the step before them all.
    """
    [case] = cases_of(TENSOR, _STEPS, "robust")
    record = MegatronRecord()
    actor, engine = build(case, inputs)
    record.error = _overflown(case, inputs, actor, engine)
    _set_scale(engine, _SCALE)
    for step in range(2):
        record.steps.append(run_step(case, inputs, actor, engine, step))
    for scale in (_SCALE, _SMALLER):
        actor, engine = build(case, inputs)
        _set_scale(engine, scale)
        record.steps.append(run_step(case, inputs, actor, engine, 0))
    return record


def stock_overflow(inputs: Inputs) -> MegatronRecord:
    """The step of the same scale that is too large, without a rule; the record has its error."""
    [case] = cases_of(TENSOR, _STEPS, STOCK)
    return MegatronRecord(error=_overflown(case, inputs, *build(case, inputs)))


def _overflown(case: MegatronCase, inputs: Inputs, actor: Any, engine: Any) -> str:
    _set_scale(engine, _TOO_LARGE)
    try:
        run_step(case, inputs, actor, engine, 0)
    except NotImplementedError as error:
        return str(error)
    return ""


def interrupted(case: MegatronCase, inputs: Inputs) -> MegatronRecord:
    """A step that ends with an error in its second pass, when something is set aside already.

    With halves after the first of them, when the routers have counted its tokens.

    Args:
        case: what to run; its own record has the same step without the error before it.
        inputs: models and mini-batches.

    Returns:
        The same step once more. The error is that of the first, and the routers' memory what both
        have left.
    """
    record = MegatronRecord()
    with exactly() if case.recipe.precision == "fp64" else nullcontext():
        actor, engine = build(case, inputs)
        engine._estimator.collect = partial(_fail_at_plasticity, engine._estimator.collect)
        try:
            run_step(case, inputs, actor, engine, 0)
        except MemoryError as error:
            record.error = repr(error)
        record.routers.append(remembered(engine))
        del engine._estimator.collect
        record.steps.append(run_step(case, inputs, actor, engine, 0))
        record.routers.append(remembered(engine))
    return record


def _fail_at_plasticity(collect: Any, objective: Objective, run: Any) -> None:
    def broken(part: int | None) -> None:
        if part == 0:
            run(part)
        raise MemoryError("in the second pass")

    collect(objective, broken if objective is Objective.PLASTICITY else run)


def _set_scale(engine: Any, scale: float) -> None:
    (optimizer,) = engine.optimizer.chained_optimizers
    scaler = optimizer.grad_scaler
    scaler.load_state_dict(scaler.state_dict() | {"scale": torch.tensor([scale])})


# Two steps, and the same with one between them whose surrogate is NaN on the last rank alone.
SOUND = replace(PLAIN, name="sound", batches=("even", "even_second"), micro_batches=(4,))
BROKEN = replace(SOUND, name="broken", batches=("even", "even_poisoned", "even_second"))
NOT_FINITE = [
    *cases_of(SHARDED, BROKEN, STOCK, "observe"),
    *(
        case
        for recipe in (SOUND, BROKEN)
        for case in (
            *cases_of(SHARDED, recipe, "robust", "robust_halves"),
            *cases_of(MOST, recipe, "robust"),
        )
    ),
]


# Name to function and the number of ranks on which it runs.
SCENARIOS: dict[str, tuple[Callable[[Inputs], MegatronRecord], int]] = {
    "overflow": (overflow, 2),
    "overflow-stock": (stock_overflow, 2),
    **{f"interrupted-{case.name}": (partial(interrupted, case), 2) for case in INTERRUPTED},
    **{case.name: (partial(run_case, case), case.layout.ranks) for case in NOT_FINITE},
}
