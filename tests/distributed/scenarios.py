"""What does not fit the scheme of one engine that makes a few steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe
from tests.distributed.records import CaseRecord
from tests.distributed.running import build, run_step

_RESUMED = Recipe(name="resumed", batches=("mixed", "second"), learning_rate=1e-2)
_INFINITE = Recipe(name="infinite", batches=("mixed", "second", "mixed"), learning_rate=1e-2)
_SKIPPING = Recipe(name="skipping")
_WEIGHED = Recipe(name="plain")


def resume(inputs: Inputs, folder: Path) -> CaseRecord:
    """Train a step, save, train the next; and the next again from the checkpoint.

    Returns:
        Three steps: the first, the second, and the second of a new engine that was resumed.
    """
    case = Case(recipe=_RESUMED, variant="robust")
    record = CaseRecord()
    checkpoint = str(folder / "checkpoint")
    torch.manual_seed(dist.get_rank())
    actor, engine = build(case, inputs)
    record.steps.append(run_step(_RESUMED, inputs, actor, engine, 0))
    engine.save_checkpoint(checkpoint)
    dist.barrier()
    record.steps.append(run_step(_RESUMED, inputs, actor, engine, 1))
    actor, engine = build(case, inputs)
    engine.load_checkpoint(checkpoint, del_local_after_load=False)
    record.steps.append(run_step(_RESUMED, inputs, actor, engine, 1))
    return record


def infinite_outside(inputs: Inputs, folder: Path) -> CaseRecord:
    """A step whose blocks are all right, but not the gradient of another parameter.

    Returns:
        Three steps, of which veRL skips the second.
    """
    record = CaseRecord()
    actor, engine = build(Case(recipe=_INFINITE, variant="robust"), inputs)
    for step in range(len(_INFINITE.batches)):
        if step == 1:
            _spoil_output_layer(engine)
        record.steps.append(run_step(_INFINITE, inputs, actor, engine, step))
    return record


def _spoil_output_layer(engine: Any) -> None:
    """Make its gradient infinite in the next step, after the update has been computed."""
    compute = engine.forward_backward_batch

    def spoiled(*positional: Any, **named: Any) -> Any:
        output = compute(*positional, **named)
        engine.module.lm_head.weight.grad.mul_(torch.inf)
        del engine.forward_backward_batch
        return output

    engine.forward_backward_batch = spoiled


def skipped_layer(inputs: Inputs, folder: Path) -> CaseRecord:
    """A layer whose MLP gets no gradient in one micro-batch: its hook stays silent once."""
    record = CaseRecord()
    actor, engine = build(Case(recipe=_SKIPPING, variant="paper"), inputs)
    calls = 0

    def cut(module: nn.Module, positional: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return output.detach() if calls == 2 else output

    engine.module.model.layers[1].mlp.register_forward_hook(cut)
    try:
        run_step(_SKIPPING, inputs, actor, engine, 0)
    except RuntimeError as error:
        record.error = f"{type(error).__name__}: {error}"
    return record


def first_weighs(inputs: Inputs, folder: Path) -> CaseRecord:
    """A step under a weighting of TorchJD that fails on every rank but the first."""
    record = CaseRecord()
    actor, engine = build(Case(recipe=_WEIGHED, variant="upgrad"), inputs)
    if dist.get_rank() > 0:
        engine._update._weighting = _no_weights
    record.steps.append(run_step(_WEIGHED, inputs, actor, engine, 0))
    return record


def _no_weights(gramians: Tensor) -> Tensor:
    raise AssertionError("only the first rank computes")


# Name to function and the numbers of ranks on which it runs.
SCENARIOS: dict[str, tuple[Callable[[Inputs, Path], CaseRecord], tuple[int, ...]]] = {
    "resume": (resume, (2,)),
    "infinite_outside": (infinite_outside, (2,)),
    "skipped_layer": (skipped_layer, (1,)),
    "first_weighs": (first_weighs, (2,)),
}
