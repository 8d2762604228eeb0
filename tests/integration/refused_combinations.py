"""Keys of ours that do nothing together, in the form of `refused_settings.REFUSED`."""

from tests.integration.recipes import ACTOR
from tests.integration.refused_settings import MEGATRON, PCR, SPLIT_HALF

_COMBINED = f"{PCR}.combine_signals=true"
_OPEN = f"{PCR}.gate=false"

COMBINATIONS: list[tuple[list[str], str, list[str]]] = [
    (
        [_OPEN, f"{PCR}.min_cosine=0.1"],
        "pcr.min_cosine=0.1",
        ["pcr.gate=false reads no cosine"],
    ),
    (
        [_OPEN, f"{PCR}.preset=robust"],
        "pcr.gate=False",
        ["nothing changes", "pcr.stability_floor=false"],
    ),
    (
        [f"{ACTOR}.update_rule=torchjd:UPGrad", f"{PCR}.stability_floor=true"],
        "pcr.stability_floor=True",
        ["TorchJD", "leave null"],
    ),
    # Nothing would be combined.
    *(
        ([_COMBINED, *overrides], "pcr.combine_signals=True", [reason, remedy])
        for overrides, reason, remedy in (
            ([], "micro-batch's p", "pcr.variance.estimator=sequence or split_half"),
            ([SPLIT_HALF, f"{PCR}.passes=two_forward"], "pcr.passes=two_forward", "use false"),
        )
    ),
    *(
        (
            [_COMBINED, SPLIT_HALF, *overrides],
            "pcr.combine_signals=True",
            [reason, "use pcr.combine_signals=false"],
        )
        for overrides, reason in (
            ([f"{ACTOR}.strategy=fsdp"], f"{ACTOR}.strategy=fsdp, and"),
            (MEGATRON, f"{ACTOR}.strategy=megatron, and"),
            (["actor_rollout_ref.model.use_liger=True"], "model.use_liger=True, and"),
        )
    ),
]
