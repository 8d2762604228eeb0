"""What does not fit the scheme of one engine that makes a few steps."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear
from verl.workers.utils.losses import ppo_loss

from tests.distributed.cases import PLAIN, Case, fitting
from tests.distributed.degenerate_cases import DEGENERATE
from tests.distributed.inputs import Inputs
from tests.distributed.layouts import FLAT, LAYOUTS
from tests.distributed.loss_scenario import losses
from tests.distributed.recipe import Recipe
from tests.distributed.recomputed import CHECKPOINTED
from tests.distributed.recomputing import RECOMPUTING
from tests.distributed.records import CaseRecord, StepRecord
from tests.distributed.running import LOSS_SCALE, build, failed_step, mini_batch, run_step

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


# The micro-batch in which a layer's MLP is cut off; every pass has six of them over all ranks.
SKIPPED, MICRO_BATCHES = 1, 6
_OVERFLOW = Recipe(
    name="overflow", precision="fp16", batches=("mixed", "mixed", "second"), learning_rate=1e-3
)


def skipped_layer(strategy: str, inputs: Inputs, folder: Path) -> CaseRecord:
    """A layer whose MLP gets no gradient in one micro-batch of either pass.

    FSDP2 must then reduce once a pass: ranks with different gradients must not meet before.
    """
    recipe = _SKIPPING[strategy]
    variant = "robust" if dist.get_world_size() == 1 else "robust_twice"
    actor, engine = build(Case(recipe=recipe, variant=variant), inputs)
    calls, here = 0, MICRO_BATCHES // dist.get_world_size()

    def cut(module: nn.Module, positional: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        # With several ranks only the first one's micro-batch is cut off.
        cut_off = dist.get_rank() == 0 and (calls - 1) % here == SKIPPED
        return output.detach() if cut_off else output

    engine.module.get_submodule("model.layers.1.mlp").register_forward_hook(cut)
    return CaseRecord(steps=[run_step(recipe, inputs, actor, engine, 0)])


def overflow(inputs: Inputs, folder: Path) -> CaseRecord:
    """fp16 with a loss scale that overflows at first, and is then the right one.

    Returns:
        Five steps: three of which veRL skips the first; then the two others at the right scale
        from the start, on an engine of their own.
    """
    record = CaseRecord()
    case = Case(recipe=_OVERFLOW, variant="robust")
    actor, engine = build(case, inputs)
    too_large = 2.0**30
    engine.scaler = ShardedGradScaler(
        device="cpu", init_scale=too_large, backoff_factor=LOSS_SCALE / too_large
    )
    for step in range(3):
        record.steps.append(run_step(_OVERFLOW, inputs, actor, engine, step))
    actor, engine = build(case, inputs)
    for step in (1, 2):
        record.steps.append(run_step(_OVERFLOW, inputs, actor, engine, step))
    return record


def unseen_gradient(variant: str, inputs: Inputs, folder: Path) -> CaseRecord:
    """An MLP that uses a weight behind the back of the module that owns it."""
    recipe = _SKIPPING["fsdp2"]
    actor, engine = build(Case(recipe=recipe, variant=variant), inputs)
    mlp = engine.module.model.layers[1].mlp

    def fused(hidden: Tensor) -> Tensor:
        inner = mlp.act_fn(mlp.gate_proj(hidden)) * mlp.up_proj(hidden)
        return linear(inner, mlp.down_proj.weight)

    mlp.forward = fused
    return failed_step(recipe, inputs, actor, engine)


def different_parameters(inputs: Inputs, folder: Path) -> CaseRecord:
    """A micro-batch that reaches another weight on every rank, of the same size.

    FSDP2 then adds up their gradients.
    """
    recipe = _SKIPPING["fsdp2"]
    actor, engine = build(Case(recipe=recipe, variant="paper"), inputs)
    mlp = engine.module.model.layers[1].mlp
    cut_off = (mlp.gate_proj, mlp.up_proj)[dist.get_rank()]
    cut_off.register_forward_hook(lambda module, positional, output: output.detach())
    return failed_step(recipe, inputs, actor, engine)


def first_weighs(inputs: Inputs, folder: Path) -> CaseRecord:
    """A step under a weighting of TorchJD that fails on every rank but the first."""
    record = CaseRecord()
    actor, engine = build(Case(recipe=_WEIGHED, variant="upgrad"), inputs)
    if dist.get_rank() > 0:
        engine._update._weighting = _no_weights
    record.steps.append(run_step(_WEIGHED, inputs, actor, engine, 0))
    return record


def first_fails(inputs: Inputs, folder: Path) -> CaseRecord:
    """A step under a weighting of TorchJD that fails on the first rank, which alone computes."""
    record = CaseRecord()
    actor, engine = build(Case(recipe=_WEIGHED, variant="upgrad"), inputs)
    engine._update._weighting = _no_weights
    try:
        run_step(_WEIGHED, inputs, actor, engine, 0)
    except (AssertionError, RuntimeError) as error:
        record.error = f"{type(error).__name__}: {error}"
    return record


def two_in_a_row(variant: str, inputs: Inputs, folder: Path) -> CaseRecord:
    """Two batches before a step, each by itself, as veRL's Tinker worker asks an engine for it."""
    record = CaseRecord()
    actor, engine = build(Case(recipe=_WEIGHED, variant=variant), inputs)
    loss = partial(ppo_loss, config=actor)
    with engine.train_mode(zero_grad_on_exit=False):
        engine.forward_backward_batch(mini_batch(_WEIGHED, inputs, 0), loss)
    try:
        with engine.train_mode(zero_grad_on_exit=False):
            engine.forward_backward_batch(mini_batch(_WEIGHED, inputs, 0), loss)
    except RuntimeError as error:
        record.error = f"{type(error).__name__}: {error}"
    # The error has emptied the gradients, so that a step is as if nothing had been.
    record.steps.append(run_step(_WEIGHED, inputs, actor, engine, 0))
    return record


def _no_weights(gramians: Tensor) -> Tensor:
    raise AssertionError("only the first rank computes")


def memory(recipe: Recipe, variant: str, inputs: Inputs, folder: Path) -> CaseRecord:
    """What gradients hold when both exist.

    Returns:
        One step whose metrics are bytes: `held` by all gradients and the taken ones, in `whole`
        one gradient of the model on this rank, and in the `scope`.
    """
    actor, engine = build(Case(recipe=recipe, variant=variant), inputs)
    statistics, found = engine._update._statistics, {}

    def measure(pair: Any) -> Any:
        taken = pair.stability
        halves = getattr(engine._estimator, "_first", {}).values()
        kept = [g for part in (taken, *halves) for g in part]
        held = [p.grad for p in engine.module.parameters() if p.grad is not None]
        local = [g.to_local() if isinstance(g, DTensor) else g for g in held]
        storages = [g.untyped_storage() for g in (*local, *kept)]
        found["held"] = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
        found["whole"] = sum(g.nbytes for g in local)
        found["scope"] = sum(g.nbytes for g in taken)
        return statistics(pair)

    engine._update._statistics = measure
    run_step(recipe, inputs, actor, engine, 0)
    return CaseRecord(steps=[StepRecord(metrics={n: float(v) for n, v in found.items()})])


_MEASURED = [
    *((fitting("paper", recipe), recipe, ranks) for recipe, ranks in [(PLAIN, 2), *LAYOUTS]),
    *(("paper_halves", recipe, 2) for recipe in (PLAIN, FLAT)),
    *((v, CHECKPOINTED, 2) for v in ("paper", "paper_halves", "paper_sequences_combined")),
    *((v, PLAIN, 2) for v in ("paper_twice", "paper_sequences_combined", "robust_halves_combined")),
]
MEMORY = {
    f"memory-{recipe.name}-{variant}": (partial(memory, recipe, variant), (ranks,))
    for variant, recipe, ranks in _MEASURED
}
# Name to function and the numbers of ranks on which it runs.
SCENARIOS: dict[str, tuple[Callable[[Inputs, Path], CaseRecord], tuple[int, ...]]] = {
    "infinite_outside": (infinite_outside, (2,)),
    "skipped_layer": (partial(skipped_layer, "fsdp2"), (1, 2)),
    "skipped_layer_flat": (partial(skipped_layer, "fsdp"), (1, 2)),
    "overflow": (overflow, (2,)),
    **MEMORY,
    "unseen_gradient": (partial(unseen_gradient, "paper"), (1,)),
    "unseen_leaf": (partial(unseen_gradient, "paper_halves_combined"), (1,)),
    "different_parameters": (different_parameters, (2,)),
    "first_weighs": (first_weighs, (2,)),
    "first_fails": (first_fails, (2,)),
    **{f"two_in_a_row-{v}": (partial(two_in_a_row, v), (1,)) for v in ("paper", "observe")},
    "losses_fsdp": (partial(losses, "fsdp"), (2,)),
    "losses_fsdp2": (partial(losses, "fsdp2"), (2,)),
    **DEGENERATE,
    **RECOMPUTING,
}
