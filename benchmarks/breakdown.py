"""Where the time of one update goes, from ranges in the trace of torch's profiler."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist

import pcr_plugin.update
from benchmarks.patching import Switched, borders, in_range, replaced, switched_on
from pcr_plugin.estimators import (
    MicroBatchEstimator,
    Objective,
    SequenceEstimator,
    SplitHalfEstimator,
)

PARTS = (
    "forward",
    "recomputation",
    "backward",
    "backward of s",
    "backward of p",
    "statistics",
    "communication",
    "combine",
    "clip and step",
    "rest",
)
_PREFIX = "benchmark/"
_LAYER = "layer"
_OBJECTIVES = {Objective.STABILITY: "s", Objective.PLASTICITY: "p"}
_COLLECTIVES = (
    "all_reduce",
    "all_gather_into_tensor",
    "all_gather_object",
    "reduce_scatter_tensor",
    "broadcast",
)

# Hooks of the estimators, and what they do after the passes.
_HOOKS = {
    MicroBatchEstimator: ("_add_square",),
    SequenceEstimator: ("_forward", "_backward", "_sum_up"),
    SplitHalfEstimator: (),
}

Span = tuple[float, float, str]


def make_switchable(engine: Any) -> None:
    """Let the hooks of an engine's estimator be marked later; they come with its first update.

    Args:
        engine: of veRL, or of ours.
    """
    estimator = getattr(engine, "_estimator", None)
    for name in _HOOKS.get(type(estimator), ()):
        setattr(estimator, name, Switched(_PREFIX + "statistics", getattr(estimator, name)))


@contextmanager
def ranges(engine: Any) -> Iterator[None]:
    """Mark the parts of an engine's updates in the trace.

    Args:
        engine: of veRL, or of ours.
    """
    with ExitStack() as stack:
        for mark in (*_of_host(engine), *_of_update(engine)):
            stack.enter_context(mark)
        yield


def _of_host(engine: Any) -> Iterator[AbstractContextManager[None]]:
    yield _marked(engine, "forward_step", "forward")
    for name in ("optimizer_zero_grad", "optimizer_step"):
        yield _marked(engine, name, "clip and step")
    for name in ("backward", "grad"):
        yield _marked(torch.autograd, name, "backward")
    for name in _COLLECTIVES:
        yield _marked(dist, name, "communication")
    yield replaced(dist.Work, "wait", _ranged_method)
    for module in engine.module if isinstance(engine.module, list) else [engine.module]:
        for layer in _layers(module):
            yield _marked(layer, "forward", _LAYER)


def _ranged_method(original: Callable[..., Any]) -> Callable[..., Any]:
    """Set on a class, a function becomes a method of its objects."""
    return in_range(_PREFIX + "communication", original)


def _of_update(engine: Any) -> Iterator[AbstractContextManager[None]]:
    if not hasattr(engine, "_update"):
        return
    update = engine._update
    for name in ("_statistics", "_decide", "_metrics"):
        yield _marked(update, name, "statistics")
    yield _marked(update, "_sum_over_ranks", "communication")
    yield _marked(pcr_plugin.update, "combine_", "combine")
    estimator = engine._estimator
    yield switched_on([one for one in vars(estimator).values() if isinstance(one, Switched)])
    yield replaced(estimator, "collect", _collecting)
    if hasattr(estimator, "watching"):  # two backward passes after one forward pass
        yield replaced(estimator, "watching", _watching)


def _marked(owner: Any, name: str, part: str) -> AbstractContextManager[None]:
    return replaced(owner, name, partial(in_range, _PREFIX + part))


def _collecting(original: Callable[..., None]) -> Callable[..., None]:
    def collect(objective: Objective, *arguments: Any) -> None:
        with borders(_PREFIX + _OBJECTIVES[objective]):
            original(objective, *arguments)

    return collect


def _watching(original: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def watching(objective: Objective) -> Iterator[None]:
        with borders(_PREFIX + _OBJECTIVES[objective]), original(objective):
            yield

    return watching


def _layers(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Decoder layers, inside of what FSDP1 wraps them in: checkpoints recompute these."""
    found = {}
    for name, layer in module.named_modules():
        plain = name.replace("._fsdp_wrapped_module", "").replace("_fsdp_wrapped_module.", "")
        if re.search(r"(^|\.)layers\.\d+$", plain):
            found[plain] = layer  # the innermost comes last
    return list(found.values())


def breakdown(events: Iterable[Any]) -> dict[str, float]:
    """Seconds of every part.

    Args:
        events: of a profile of one update, run in `borders("benchmark/update")` and `ranges`.

    Returns:
        Of PARTS, those that are not 0; they add up to the update.
    """
    spans = [
        (event.time_range.start, event.time_range.end, event.name.removeprefix(_PREFIX))
        for event in events
        if event.name.startswith(_PREFIX)
    ]
    seconds = dict.fromkeys(PARTS, 0.0)
    for length, active in _pieces(spans):
        seconds[_part(active)] += length / 1e6
    return {part: found for part, found in seconds.items() if found}


def _pieces(spans: Sequence[Span]) -> Iterator[tuple[float, list[str]]]:
    """Between any two borders: the length, and what is under way, the innermost last."""
    borders_of_all = sorted({border for start, end, _ in spans for border in (start, end)})
    by_start = sorted(spans, key=lambda span: (span[0], -span[1]))
    active: list[Span] = []
    following = 0
    for start, end in pairwise(borders_of_all):
        while following < len(by_start) and by_start[following][0] <= start:
            active.append(by_start[following])
            following += 1
        active = [span for span in active if span[1] > start]
        if active:
            yield end - start, [name for _, _, name in active]


def _part(active: Sequence[str]) -> str:
    """The part of what is under way, outermost first."""
    innermost = next((name for name in reversed(active) if name not in ("p", "s")), "update")
    if innermost == "update":
        return "rest"
    if innermost == _LAYER:
        return "recomputation" if "backward" in active else "forward"
    if innermost != "backward":
        return innermost
    objective = next((name for name in reversed(active) if name in ("p", "s")), None)
    return "backward" if objective is None else f"backward of {objective}"
