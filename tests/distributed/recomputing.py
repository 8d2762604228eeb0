"""How often layers are recomputed and gathered, and models whose layers are no chain."""

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from benchmarks.scaling.collectives import counted
from tests.distributed.cases import Case
from tests.distributed.inputs import Inputs
from tests.distributed.recipe import Recipe
from tests.distributed.recomputed import CHECKPOINTED
from tests.distributed.records import CaseRecord, StepRecord
from tests.distributed.running import build, failed_step, run_step

# In the second step the model is known.
TWO_STEPS = Recipe(name="checkpointed", checkpointing=True, batches=("mixed", "mixed"))
# Without recomputation, with what FSDP2 does by default after a forward pass, and without that.
RESHARDED = {
    reshard: Recipe(name="gathered", reshard=reshard, defer_sync=False, batches=("mixed", "mixed"))
    for reshard in (True, False)
}
MICRO_BATCHES = 6
ONCE = ("paper", "paper_halves", "robust_halves_combined")
TWICE = ("paper_recomputed_twice", "everything")


def counts(recipe: Recipe, variant: str, inputs: Inputs, folder: Path) -> CaseRecord:
    """A step whose metrics are per layer and micro-batch.

    Returns:
        `forward`: how often a layer is run, also to be recomputed; `first`: the same of the first
        step. `all-gather`, `reduce-scatter`: of the parameters of a layer; of those in the scope
        alone `reduce-scatter scope`. And of the whole step `open`: layers that are still gathered
        after it; `alive`: most layers that were recomputed and still there when another one was.
    """
    actor, engine = build(Case(recipe=recipe, variant=variant), inputs)
    layers, runs = engine.module.model.layers, _Runs(engine.module.model.layers)
    whole = sum(p.nbytes for p in layers[0].parameters())
    scope = sum(p.nbytes for p in layers[0].mlp.parameters())
    run_step(recipe, inputs, actor, engine, 0)
    first, runs.count = runs.count, 0
    update, found = engine.forward_backward_batch, {}

    def observed(*positional: Any, **named: Any) -> Any:
        output: list[Any] = []
        found.update(counted(lambda: output.append(update(*positional, **named))))
        return output[0]

    engine.forward_backward_batch = observed
    run_step(recipe, inputs, actor, engine, 1)

    def near(kind: str, size: int) -> int:
        """Shards are padded to one size, and nothing else is near that."""
        return sum(n for (k, held), n in found.items() if k == kind and size <= held < 1.1 * size)

    times = MICRO_BATCHES // dist.get_world_size() * len(layers)
    gathered = [not isinstance(p, DTensor) for layer in layers for p in layer.parameters()]
    metrics = {
        "forward": runs.count / times,
        "first": first / times,
        "all-gather": near("all-gather", whole) / times,
        "reduce-scatter": near("reduce-scatter", whole) / times,
        "reduce-scatter scope": near("reduce-scatter", scope) / times,
        "open": float(sum(gathered)),
        "alive": float(runs.most),
    }
    return CaseRecord(steps=[StepRecord(metrics=metrics)])


class _Runs:
    """Counts how often layers are run, and which of their graphs are there."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.count = self.most = 0
        self._outputs: list[weakref.ref[Tensor]] = []
        for layer in layers:
            layer.register_forward_pre_hook(self._before)
            layer.register_forward_hook(self._after)

    def _before(self, *_: Any) -> None:
        self.count += 1
        self._outputs = [output for output in self._outputs if output() is not None]
        self.most = max(self.most, len(self._outputs))

    def _after(self, layer: nn.Module, positional: Any, output: Tensor) -> None:
        # A layer that torch recomputes by other means stops before it comes here.
        if torch._C._current_graph_task_id() != -1:  # in a backward pass
            self._outputs.append(weakref.ref(output))


def _between(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """What comes into a layer is changed by the model that has it."""
    kind: Any = type(layer)

    def call(self: Any, hidden: Tensor, *positional: Any, **named: Any) -> Any:
        return kind.__call__(self, change(hidden), *positional, **named)

    layer.__class__ = type(kind.__name__, (kind,), {"__call__": call})


def no_chain(variant: str, inputs: Inputs, folder: Path) -> CaseRecord:
    """A layer that gets a copy of what the layer before has returned."""
    actor, engine = build(Case(recipe=CHECKPOINTED, variant=variant), inputs)
    _between(engine.module.model.layers[2], Tensor.clone)
    return CaseRecord(steps=[run_step(CHECKPOINTED, inputs, actor, engine, 0)])


def broken_chain(inputs: Inputs, folder: Path) -> CaseRecord:
    """The same, from the second step on."""
    actor, engine = build(Case(recipe=TWO_STEPS, variant="paper"), inputs)
    run_step(TWO_STEPS, inputs, actor, engine, 0)
    _between(engine.module.model.layers[2], Tensor.clone)
    return failed_step(TWO_STEPS, inputs, actor, engine)


def way_around(variant: str, inputs: Inputs, folder: Path) -> CaseRecord:
    """The output of a layer in the middle goes to the last norm, too."""
    actor, engine = build(Case(recipe=CHECKPOINTED, variant=variant), inputs)
    seen: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        seen[:] = [hidden]
        return hidden

    _between(engine.module.model.layers[2], keep)
    engine.module.model.norm.register_forward_pre_hook(lambda _, inputs: inputs[0] + seen[0])
    return failed_step(CHECKPOINTED, inputs, actor, engine)


# Name to function and the numbers of ranks, as `scenarios.SCENARIOS` has them.
RECOMPUTING: dict[str, tuple[Callable[[Inputs, Path], CaseRecord], tuple[int, ...]]] = {
    **{f"recomputations-{v}": (partial(counts, TWO_STEPS, v), (2,)) for v in (*ONCE, *TWICE)},
    **{
        f"gatherings-{reshard}": (partial(counts, recipe, "paper"), (2,))
        for reshard, recipe in RESHARDED.items()
    },
    **{f"no_chain-{v}": (partial(no_chain, v), (2,)) for v in ("paper", "paper_recomputed_twice")},
    "broken_chain": (broken_chain, (2,)),
    **{
        f"way_around-{v}": (partial(way_around, v), (2,))
        for v in ("paper", "robust_halves_combined")
    },
}
