"""Which rules are timed in which layouts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# name -> (update_rule, keys below pcr)
VARIANTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "stock": (None, {}),
    "sum": ("sum", {}),
    "pcr (paper)": ("pcr", {}),
    "pcr (robust)": ("pcr", {"preset": "robust"}),
    "pcr, split_half": ("pcr", {"variance": {"estimator": "split_half"}}),
    "pcr, sequence": ("pcr", {"variance": {"estimator": "sequence"}}),
    "pcgrad": ("pcgrad", {}),
    "soft 0.5": ("soft", {"alpha": 0.5}),
    "observe, a measuring step": ("observe", {"observe_every": 1}),
}
_FEW = ("stock", "pcr (paper)", "pcr, split_half", "pcr, sequence")
# Experts get some of the tokens, which probes of a layer do not read.
_NO_PROBES = _FEW[:-1]
# Ranks that share the tokens of a sequence have no units in their micro-batches.
_SHARED = ("stock", *_FEW[2:])


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One table of the page.

    Args:
        changes: fields of the workload that are different.
        variants: names of VARIANTS.
        ranks: that it needs; 1 for any number.
    """

    changes: Mapping[str, Any]
    variants: Sequence[str] = _FEW
    ranks: int = 1


def _both(
    name: str, variants: Sequence[str] = _FEW, ranks: int = 1, **changes: Any
) -> dict[str, Layout]:
    return {
        strategy + name: Layout(
            changes={"strategy": strategy, **changes}, variants=variants, ranks=ranks
        )
        for strategy in ("fsdp", "fsdp2")
    }


_OFFLOADS = (("param_offload", True), ("optimizer_offload", True))
_POLICY = (("offload_policy", True),)

LAYOUTS: dict[str, Layout] = {
    **_both("", tuple(VARIANTS)),
    **_both("-lora", lora_rank=32),
    **_both("-experts", _NO_PROBES, experts=8),
    **_both("-tied", tied=True),
    **_both("-offload", engine=_OFFLOADS),
    "fsdp2-offload_policy": Layout(changes={"strategy": "fsdp2", "engine": _POLICY}),
    **_both("-ulysses", _SHARED, ranks=2, sequence_ranks=2),
    **_both("-hybrid", ranks=4, fsdp_size=2),
}
