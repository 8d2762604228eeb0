"""What does not fit the scheme of one engine that makes a few steps."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import linear

from tests.distributed.cases import Case
from tests.distributed.degenerate_cases import DEGENERATE
from tests.distributed.inputs import Inputs
from tests.distributed.loss_scenario import losses
from tests.distributed.recipe import Recipe
from tests.distributed.records import CaseRecord
from tests.distributed.running import build, run_step

_INFINITE = Recipe(name="infinite", batches=("mixed", "second", "mixed"), learning_rate=1e-2)
_SKIPPING = {s: Recipe(name="skipping", strategy=s) for s in ("fsdp", "fsdp2")}
_WEIGHED = Recipe(name="plain")


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


# The micro-batch in which a layer's MLP is cut off; every pass has six of them.
SKIPPED, MICRO_BATCHES = 1, 6


def skipped_layer(strategy: str, inputs: Inputs, folder: Path) -> CaseRecord:
    """A layer whose MLP gets no gradient in one micro-batch of either pass."""
    recipe = _SKIPPING[strategy]
    actor, engine = build(Case(recipe=recipe, variant="robust"), inputs)
    calls = 0

    def cut(module: nn.Module, positional: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return output.detach() if (calls - 1) % MICRO_BATCHES == SKIPPED else output

    engine.module.get_submodule("model.layers.1.mlp").register_forward_hook(cut)
    return CaseRecord(steps=[run_step(recipe, inputs, actor, engine, 0)])


def unseen_gradient(inputs: Inputs, folder: Path) -> CaseRecord:
    """An MLP that uses a weight behind the back of the module that owns it."""
    record = CaseRecord()
    recipe = _SKIPPING["fsdp2"]
    actor, engine = build(Case(recipe=recipe, variant="paper"), inputs)
    mlp = engine.module.model.layers[1].mlp

    def fused(hidden: Tensor) -> Tensor:
        inner = mlp.act_fn(mlp.gate_proj(hidden)) * mlp.up_proj(hidden)
        return linear(inner, mlp.down_proj.weight)

    mlp.forward = fused
    try:
        run_step(recipe, inputs, actor, engine, 0)
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
    "infinite_outside": (infinite_outside, (2,)),
    "skipped_layer": (partial(skipped_layer, "fsdp2"), (1,)),
    "skipped_layer_flat": (partial(skipped_layer, "fsdp"), (1,)),
    "unseen_gradient": (unseen_gradient, (1,)),
    "first_weighs": (first_weighs, (2,)),
    "losses": (losses, (2,)),
    **DEGENERATE,
}
