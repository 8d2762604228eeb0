"""What the ranks run: OpenRLHF's own trainer, with and without a rule."""

from dataclasses import dataclass, field
from typing import Any

# Below the norm of every combined gradient.
_CLIPPED = 0.1
# Random directions of `sequences`.
PROBES = 4
# Name to `--actor.update_rule` and the fields below `--actor.pcr`; None is OpenRLHF's own trainer.
RULES: dict[str, tuple[str, dict[str, Any]] | None] = {
    "stock": None,
    "sum": ("sum", {}),
    "pcr": ("pcr", {"log_blocks": True}),
    "robust": ("pcr", {"preset": "robust"}),
    "pcgrad": ("pcgrad", {}),
    "soft": ("soft", {"alpha": 0.3}),
    "two_forward": ("pcr", {"passes": "two_forward", "log_blocks": True}),
    "split_half": ("pcr", {"variance": {"estimator": "split_half"}}),
    "observe": ("observe", {"observe_every": 2}),
    "sequences": (
        "pcr",
        {"variance": {"estimator": "sequence", "probes": PROBES}, "log_blocks": True},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of the trainer over its buffer.

    Args:
        name: key of the record.
        rule: key of `RULES`.
        model: key of `tests.support.tiny_model.MODELS`.
        batch: key of `tests.distributed.inputs.BATCHES`; of the model.
        ranks: numbers of processes it is run with.
        arguments: OpenRLHF's, with `__` for dots.
        adam: AdamW with a usual rate instead of a plain gradient step.
        max_norm: of the clipped gradient, 0 for none.
        checkpointing: recompute activations: `reentrant` or `not_reentrant`.
        beta: the KL coefficient.
        entropy: coefficient of the entropy bonus.
        dropout: of the attention.
        calls: of `ppo_train`, each over the same buffer.
        spoiled: a parameter whose gradient is infinite in the last call.
    """

    name: str
    rule: str
    model: str = "wide"
    batch: str = "mixed"
    ranks: tuple[int, ...] = (2,)
    arguments: dict[str, Any] = field(default_factory=dict)
    adam: bool = False
    max_norm: float = 0.0
    checkpointing: str | None = None
    beta: float = 0.05
    entropy: float = 0.0
    dropout: float = 0.0
    calls: int = 1
    spoiled: str | None = None


# OpenRLHF's command packs rows wherever batches are dynamic.
_DYNAMIC = {"train__dynamic_batch_enable": True, "ds__packing_samples": True}
_SEQUENCES: dict[str, dict[str, Any]] = {
    **{f"zero{stage}": {"arguments": {"ds__zero_stage": stage}} for stage in (0, 1, 2, 3)},
    "packed": {"arguments": {"ds__packing_samples": True}},
    "packed-dynamic3": {
        "arguments": {**_DYNAMIC, "ds__zero_stage": 3},
        "checkpointing": "not_reentrant",
    },
    # One micro-batch on each rank.
    "one": {"arguments": {"train__micro_batch_size": 6}, "checkpointing": "reentrant"},
    "masked": {"batch": "masked"},
    "lora": {"model": "lora", "batch": "lora"},
}


def _of_stages() -> list[Case]:
    """Every rule on every stage; the same data over two and three ranks."""
    found = []
    for stage in (0, 1, 2, 3):
        for rule in ("stock", "sum", "pcr", "pcgrad", "soft", "split_half"):
            ranks = (2, 3) if stage and rule != "split_half" else (2,)
            found.append(
                Case(
                    name=f"zero{stage}-{rule}",
                    rule=rule,
                    ranks=ranks,
                    arguments={"ds__zero_stage": stage},
                )
            )
    return found


def _more() -> list[Case]:
    """What differs from `_of_stages` in one respect."""
    entropy = {"actor__entropy_coef": 0.02}
    found = [
        Case(name="masked", rule="pcr", batch="masked"),
        Case(name="robust", rule="robust"),
        Case(
            name="bf16_skipped",
            rule="robust",
            arguments={"ds__param_dtype": "bf16"},
            calls=2,
            spoiled="model.norm.weight",
        ),
        Case(name="entropy", rule="pcr", arguments=entropy, entropy=0.02),
        Case(name="two_forward", rule="two_forward"),
        Case(name="lora", rule="pcr", model="lora", batch="lora"),
        Case(name="packed", rule="pcr", arguments={"ds__packing_samples": True}),
        Case(name="overlap", rule="pcr", arguments={"ds__overlap_comm": True}),
        Case(name="clipped", rule="pcr", max_norm=_CLIPPED),
        Case(name="reentrant", rule="pcr", checkpointing="reentrant"),
        Case(name="zero2-dynamic-stock", rule="stock", arguments=_DYNAMIC),
    ]
    for stage in (1, 2, 3):
        of_stage = {"ds__zero_stage": stage}
        found += [
            Case(
                name=f"zero{stage}-checkpointing",
                rule="pcr",
                arguments=of_stage,
                checkpointing="not_reentrant",
            ),
            Case(name=f"zero{stage}-dynamic", rule="pcr", arguments=_DYNAMIC | of_stage),
            Case(
                name=f"zero{stage}-offload",
                rule="pcr",
                arguments={"ds__adam_offload": True} | of_stage,
                max_norm=_CLIPPED,
            ),
        ]
    return found


def _of_bf16() -> list[Case]:
    """DeepSpeed adds micro-batches up in bf16, or in float32, which on ZeRO-1 is refused."""
    found = []
    for stage in (0, 1, 2, 3):
        of_bf16 = {"ds__param_dtype": "bf16", "ds__zero_stage": stage}
        found += [
            Case(name=f"bf16_{stage}-{rule}", rule=rule, arguments=of_bf16)
            for rule in ("stock", "sum", "pcr", "observe")
        ]
        if stage > 1:
            summed = {**of_bf16, "ds__grad_accum_dtype": "fp32"}
            found.append(Case(name=f"float32_sums{stage}", rule="pcr", arguments=summed))
    return found


def _of_sequences() -> list[Case]:
    """Units are rows, however they are padded, packed, cut and computed."""
    return [
        Case(name=f"{name}-sequences", rule="sequences", **settings)
        for name, settings in _SEQUENCES.items()
    ]


def _of_several_steps() -> list[Case]:
    """Three optimizer steps; two where DeepSpeed adds micro-batches up in other places."""
    found = [
        Case(
            name=f"adam{stage}-{rule}",
            rule=rule,
            arguments={"ds__zero_stage": stage},
            adam=True,
            max_norm=_CLIPPED,
            dropout=0.1,
            calls=3,
        )
        for stage in (0, 1, 2, 3)
        for rule in ("stock", "sum", "observe")
    ]
    offload = {"ds__adam_offload": True}
    elsewhere = [
        ("dynamic", _DYNAMIC, (1, 2, 3)),
        ("offload", offload, (1, 2, 3)),
        # Every pass is a boundary, and adds to what the earlier ones have copied.
        ("dynamic_offload", _DYNAMIC | offload, (2,)),
    ]
    found += [
        Case(
            name=f"{name}{stage}-{rule}",
            rule=rule,
            arguments={"ds__zero_stage": stage, **changes},
            adam=True,
            max_norm=_CLIPPED,
            checkpointing="not_reentrant",
            calls=2,
        )
        for name, changes, stages in elsewhere
        for stage in stages
        for rule in ("stock", "observe")
    ]
    return found


CASES = [*_of_stages(), *_more(), *_of_bf16(), *_of_sequences(), *_of_several_steps()]
# Key of what `mistakes` has seen, beside the cases' records.
MISTAKES = "mistakes"
# Stages of ZeRO on which `resuming` saves and loads a checkpoint.
RESUMED = (2, 3)
