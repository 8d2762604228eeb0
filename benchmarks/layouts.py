"""Which updates are measured in which layouts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kind of update.

    Args:
        rule: `update_rule`; `None` is veRL's stock engine class.
        settings: keys below `pcr`.
        peer: name of another library's way (`benchmarks.peers`), instead of a rule; `unsharded`
            is the rule on the model as they have it.
    """

    rule: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    peer: str = ""


def _rule(name: str, **settings: Any) -> Variant:
    return Variant(rule=name, settings=settings)


def _unsharded(name: str, **settings: Any) -> Variant:
    return Variant(rule=name, settings={"passes": "shared_forward", **settings}, peer="unsharded")


_HALVES = {"estimator": "split_half"}
_PROBES = {"estimator": "sequence"}
# One block of all parameters, as peers have it.
_WHOLE = {"scope": "all", "block": "global"}
_COMBINED = {"combine_signals": True, "variance": _HALVES}
# One block of the paper's scope.
_MLPS = {"scope": "mlp", "block": "global"}

VARIANTS: dict[str, Variant] = {
    "stock": Variant(),
    "sum": _rule("sum"),
    "pcr (paper)": _rule("pcr"),
    "pcr (robust)": _rule("pcr", preset="robust"),
    "pcr, split_half": _rule("pcr", variance=_HALVES),
    "pcr, sequence": _rule("pcr", variance=_PROBES),
    "pcgrad": _rule("pcgrad"),
    "soft 0.5": _rule("soft", alpha=0.5),
    "observe, a measuring step": _rule("observe", observe_every=1),
    "two_forward": _rule("pcr", passes="two_forward"),
    "shared_forward": _rule("pcr", passes="shared_forward"),
    "shared_forward, recomputed twice": _rule(
        "pcr", passes="shared_forward", share_recomputation=False
    ),
    "two_forward, split_half": _rule("pcr", passes="two_forward", variance=_HALVES),
    "shared_forward, split_half": _rule("pcr", passes="shared_forward", variance=_HALVES),
    "two_forward, sequence": _rule("pcr", passes="two_forward", variance=_PROBES),
    "shared_forward, sequence": _rule("pcr", passes="shared_forward", variance=_PROBES),
    # Weight gradients outside the scope once, from p + beta s.
    "shared_forward, split_half, combined": _rule(
        "pcr", passes="shared_forward", variance=_HALVES, combine_signals=True
    ),
    "shared_forward, sequence, combined": _rule(
        "pcr", passes="shared_forward", variance=_PROBES, combine_signals=True
    ),
    **{
        f"shared_forward, sequence, {value}": _rule(
            "pcr", passes="shared_forward", variance=_PROBES, zero_advantage=value
        )
        for value in ("run", "skip", "group")
    },
    "two_forward, one block": _rule("pcgrad", passes="two_forward", **_WHOLE),
    "shared_forward, one block": _rule("pcgrad", passes="shared_forward", **_WHOLE),
    "two_forward, MLPs only": _rule("pcgrad", passes="two_forward", **_MLPS),
    "shared_forward, MLPs only": _rule("pcgrad", passes="shared_forward", **_MLPS),
    "shared_forward, MLPs only, combined": _rule(
        "pcgrad", passes="shared_forward", **_COMBINED, **_MLPS
    ),
    "shared_forward, one block, unsharded": _unsharded("pcgrad", **_WHOLE),
    "shared_forward, MLPs only, unsharded": _unsharded("pcgrad", **_MLPS),
    "shared_forward, MLPs only, combined, unsharded": _unsharded("pcgrad", **_COMBINED, **_MLPS),
    "plain torch": Variant(peer="plain"),
    "TorchJD, backward": Variant(peer="torchjd"),
    "TorchJD, sparing memory": Variant(peer="torchjd_sparing"),
    "TorchJD, mtl_backward": Variant(peer="torchjd_mtl"),
    "Pytorch-PCGrad style": Variant(peer="flattened"),
    "TorchJD, MLPs only": Variant(peer="torchjd_mlps"),
    "Pytorch-PCGrad style, MLPs only": Variant(peer="flattened_mlps"),
}
RULES = tuple(VARIANTS)[:9]
_FEW = ("stock", "pcr (paper)", "pcr, split_half", "pcr, sequence")
# Experts get some of the tokens, which probes of a layer do not read.
_NO_PROBES = _FEW[:-1]
# Ranks that share the tokens of a sequence have no units in their micro-batches.
_SHARED = ("stock", *_FEW[2:])
PASSES = ("stock", "two_forward", "shared_forward")
_RECOMPUTED = (
    *PASSES,
    "shared_forward, recomputed twice",
    "shared_forward, sequence",
    "shared_forward, sequence, combined",
)
_ESTIMATORS = tuple(
    name
    for name, variant in VARIANTS.items()
    if variant.rule == "pcr"
    and {"passes", "variance"} <= set(variant.settings)
    and "zero_advantage" not in variant.settings
)
_ZEROS = tuple(name for name, v in VARIANTS.items() if "zero_advantage" in v.settings)
_PEERS = tuple(name for name, v in VARIANTS.items() if v.peer and "MLPs only" not in name)
_ONE_BLOCK = tuple(name for name in VARIANTS if name.endswith(", one block"))
_ONLY_MLPS = tuple(name for name in VARIANTS if "MLPs only" in name)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One table of the page.

    Args:
        changes: fields of the workload that are different.
        variants: names of VARIANTS.
        ranks: numbers of ranks that it is measured with by default; with 1 among them any fits.
        parts: whether the page shows where the time goes.
        device: that it is for.
    """

    changes: Mapping[str, Any]
    variants: Sequence[str] = _FEW
    ranks: Sequence[int] = (1,)
    parts: bool = False
    device: str = "cpu"


def _both(
    name: str, variants: Sequence[str] = _FEW, ranks: Sequence[int] = (1,), **changes: Any
) -> dict[str, Layout]:
    return {
        strategy + name: Layout(
            changes={"strategy": strategy, **changes}, variants=variants, ranks=ranks
        )
        for strategy in ("fsdp", "fsdp2")
    }


def _passes(
    variants: Sequence[str] = PASSES, ranks: Sequence[int] = (1,), **changes: Any
) -> Layout:
    return Layout(changes={**_THOUSAND, **changes}, variants=variants, ranks=ranks, parts=True)


# At least 1024 tokens in a micro-batch, whatever lengths are drawn, and 1664 on average.
_THOUSAND = {"sequences": 16, "prompt": 64, "response": 192, "micro_batches": 2}
_OFFLOADS = (("param_offload", True), ("optimizer_offload", True))
_POLICY = (("offload_policy", True),)
DEFERRED = (("use_no_sync_for_gradient_accumulation", True),)

LAYOUTS: dict[str, Layout] = {
    "passes": _passes(ranks=(1, 2, 4)),
    "passes-checkpointing": _passes(_RECOMPUTED, checkpointing=True, ranks=(1, 2)),
    "passes-estimators": _passes(("stock", *_ESTIMATORS)),
    "passes-equal_lengths": _passes(shortest=1.0),
    "passes-fsdp1": _passes(strategy="fsdp"),
    "passes-deferred": _passes(ranks=(1, 2), engine=DEFERRED),
    "passes-4_micro_batches": _passes(sequences=32, micro_batches=4),
    "passes-wide": _passes(width=1024, layers=2),
    "passes-deep": _passes(layers=8),
    "passes-long": _passes(prompt=128, response=896, sequences=4),
    "passes-half_without_advantage": _passes(
        ("stock", *_ZEROS), micro_batches=4, zero_advantages=0.5
    ),
    "peers": _passes(("stock", *_ONE_BLOCK, *_PEERS)),
    "peers-mlps": _passes(("stock", "plain torch", *_ONLY_MLPS)),
    "fsdp": Layout(changes={"strategy": "fsdp"}),
    "fsdp2": Layout(changes={"strategy": "fsdp2"}, variants=RULES),
    **_both("-lora", lora_rank=32),
    **_both("-experts", _NO_PROBES, experts=8),
    **_both("-tied", tied=True),
    **_both("-offload", engine=_OFFLOADS),
    "fsdp2-offload_policy": Layout(changes={"strategy": "fsdp2", "engine": _POLICY}),
    **_both("-ulysses", _SHARED, ranks=(2,), sequence_ranks=2),
    **_both("-hybrid", ranks=(4,), fsdp_size=2),
}


def _of_tokens(tokens: int, **changes: Any) -> Layout:
    """On a GPU: micro-batches of one sequence, of which at most half is the prompt."""
    lengths = {"prompt": tokens // 2, "response": tokens // 2, "sequences": 4, "micro_batches": 4}
    changes = {**lengths, "precision": "bf16", **changes}
    variants = _RECOMPUTED if changes.get("checkpointing") else PASSES
    return Layout(changes=changes, variants=variants, parts=True, device="cuda")


GPU_LAYOUTS: dict[str, Layout] = {
    f"{tokens // 1024}k{name}": _of_tokens(tokens, **changes)
    for tokens in (2048, 8192)
    for name, changes in (("", {}), ("-checkpointing", {"checkpointing": True}))
} | {
    "2k-peers": Layout(
        changes=_of_tokens(2048).changes,
        variants=(*PASSES, *_ONE_BLOCK, *_ONLY_MLPS, *_PEERS),
        device="cuda",
    )
}


def gpu_layouts(model: str) -> dict[str, Layout]:
    """Layouts for a GPU.

    Args:
        model: peers are measured with the smaller one: between turns all wait in the memory of the
            machine, with their optimizers.
    """
    return {
        name: layout
        for name, layout in GPU_LAYOUTS.items()
        if "peers" not in name or model == "qwen2.5-0.5b"
    }
