"""What the ranks run: OpenRLHF's own trainer, with and without a rule."""

from dataclasses import dataclass, field
from typing import Any

# Name to `--actor.update_rule` and the fields below `--actor.pcr`; None is OpenRLHF's own trainer.
RULES: dict[str, tuple[str, dict[str, Any]] | None] = {
    "stock": None,
    "sum": ("sum", {}),
    "pcr": ("pcr", {"log_blocks": True}),
    "robust": ("pcr", {"preset": "robust"}),
    "pcgrad": ("pcgrad", {}),
    "soft": ("soft", {"alpha": 0.3}),
    "two_forward": ("pcr", {"passes": "two_forward"}),
    "split_half": ("pcr", {"variance": {"estimator": "split_half"}}),
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


def _of_stages() -> list[Case]:
    """Every rule on every stage; the same data over two and three ranks."""
    found = []
    for stage in (0, 1, 2, 3):
        for rule in ("stock", "sum", "pcr", "pcgrad", "soft", "split_half"):
            ranks = (2, 3) if stage in (1, 2, 3) and rule in ("stock", "pcr", "soft") else (2,)
            found.append(
                Case(
                    name=f"zero{stage}-{rule}",
                    rule=rule,
                    ranks=ranks,
                    arguments={"ds__zero_stage": stage},
                )
            )
    return found


CASES = [
    *_of_stages(),
]
