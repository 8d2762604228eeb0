"""What is counted and timed, and what is modelled."""

from typing import Any

from benchmarks.layouts import DEFERRED, VARIANTS
from benchmarks.shapes import Shape
from benchmarks.workload import Workload

RANKS = (1, 2, 4)
REPEATS = 5
_TINY: dict[str, Any] = {"width": 64, "vocabulary": 256, "sequences": 4, "prompt": 8, "response": 8}
# Settings that change no collective of these updates.
_LEFT_OUT = {"scope", "share_recomputation", "zero_advantage"}
_DEFERRED = ("stock", "two_forward", "two_forward, split_half", "shared_forward")
_UPDATES = tuple(
    name
    for name, variant in VARIANTS.items()
    if name == "stock" or ("passes" in variant.settings and not _LEFT_OUT & set(variant.settings))
)


def counted_workload(layers: int, tied: bool = False, deferred: bool = False) -> Workload:
    """A model whose collectives are counted.

    Args:
        layers: decoder layers.
        tied: whether the embeddings are one tensor.
        deferred: whether gradients are reduced after the last micro-batch alone.
    """
    engine = DEFERRED if deferred else ()
    return Workload(layers=layers, micro_batches=2, tied=tied, engine=engine, **_TINY)


COUNTED = [
    *((counted_workload(2), name) for name in _UPDATES),
    *((counted_workload(2, deferred=True), name) for name in _DEFERRED),
    *((counted_workload(3, tied=True), name) for name in ("stock", "two_forward")),
]
TIMED = [
    Workload(width=width, layers=layers, vocabulary=256, sequences=4, prompt=8, response=8)
    for width, layers in ((256, 2), (256, 4), (256, 8), (512, 2), (1024, 2))
]
MODELS = ("qwen2.5-0.5b", "qwen2.5-7b", "qwen2.5-72b")
GPUS = (8, 64, 1024)
MICRO_BATCHES = 4


def shape_of(workload: Workload) -> Shape:
    """The shape of a measured model.

    Args:
        workload: see there.
    """
    return Shape(
        width=workload.width,
        layers=workload.layers,
        heads=workload.heads,
        kv_heads=workload.kv_heads,
        mlp=workload.mlp or workload.width * 11 // 4,
        vocabulary=workload.vocabulary,
        tied=workload.tied,
    )
