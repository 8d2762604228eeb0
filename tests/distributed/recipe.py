"""How a mini-batch is trained in a test: everything except the update rule."""

from dataclasses import dataclass
from typing import Any

from tests.oracle.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Model, data and the settings of veRL that change the computation.

    Args:
        name: part of the case's name.
        model: key of `tests.support.tiny_model.MODELS`.
        batches: one mini-batch per optimizer step, keys of `tests.distributed.inputs.BATCHES`.
        micro_batches: rows per micro-batch and rank in every step; `None` in a dynamic batch.
        token_budget: tokens per micro-batch of a dynamic batch.
        objective: the two losses.
        beta: the KL coefficient.
        learning_rate: 0 keeps the weights where the oracle has them.
        dropout: of the attention.
        remove_padding: pack the rows of a micro-batch into one sequence.
        checkpointing: recompute activations.
        defer_sync: reduce gradients after the last micro-batch only, as veRL's class does by
            default; its runs do not.
        reshard: free the unsharded parameters after the forward pass.
        on_policy: the reference is the policy itself, as in a run's first step.
        strategy: `fsdp` or `fsdp2`.
        engine: fields of veRL's FSDPEngineConfig that differ from its defaults.
        optimizer: Megatron-core's OptimizerConfig fields that differ from veRL's defaults.
        precision: in which the model computes: `fp32`, `bf16`, `fp16`; Megatron also in `fp64`.
    """

    name: str
    model: str = "wide"
    batches: tuple[str, ...] = ("mixed",)
    micro_batches: tuple[int, ...] | None = (2,)
    token_budget: int | None = None
    objective: Objective = Objective()  # noqa: RUF009 -- frozen
    beta: float = 0.05
    learning_rate: float = 0.0
    dropout: float = 0.0
    remove_padding: bool = False
    checkpointing: bool = False
    defer_sync: bool = True
    reshard: bool = True
    on_policy: bool = False
    strategy: str = "fsdp2"
    engine: tuple[tuple[str, Any], ...] = ()
    optimizer: tuple[tuple[str, Any], ...] = ()
    precision: str = "fp32"

    @property
    def sequence_ranks(self) -> int:
        """Ranks that share the tokens of the same rows (Ulysses)."""
        shared: int = dict(self.engine).get("ulysses_sequence_parallel_size", 1)
        return shared

    def micro_batch(self, step: int) -> int | None:
        """Rows per micro-batch in a step; the last entry counts for all later steps."""
        if self.micro_batches is None:
            return None
        return self.micro_batches[min(step, len(self.micro_batches) - 1)]


def rows_of(rank: int, ranks: int, rows: int) -> list[int]:
    """A rank's contiguous part of a mini-batch, so that ranks see different data."""
    assert rows % ranks == 0
    each = rows // ranks
    return list(range(rank * each, (rank + 1) * each))
