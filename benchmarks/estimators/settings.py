"""How much is measured, and a small version of it."""

from dataclasses import dataclass, field

from pcr_plugin.config.settings import DEFAULT_PROBES
from pcr_plugin.demo.start import StartSettings
from pcr_plugin.demo.warm_start import Schedule


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the numbers depend on, apart from the machine.

    Args:
        start: the model that reinforcement learning starts from.
        prompts: in every batch.
        answers: to each of them.
        response: tokens of the longest answer.
        kept: training steps after which the next batch is measured, before it is trained on.
        learning_rate: of the training between them.
        beta: `kl_loss_coef`.
        micro_batches: numbers of them.
        probes: values of `pcr.variance.probes`.
        orders: random orders of the rows.
        seeds: of the probes' directions.
        repeats: updates timed per estimator and number of micro-batches.
    """

    start: StartSettings = field(default_factory=StartSettings)
    prompts: int = 16
    answers: int = 8
    response: int = 24
    kept: tuple[int, ...] = (4, 12, 24)
    learning_rate: float = 2e-4
    beta: float = 0.05
    micro_batches: tuple[int, ...] = (4, 16, 64)
    probes: tuple[int, ...] = (4, 8, 16, 32)
    orders: int = 400
    seeds: int = 24
    repeats: int = 4

    @property
    def rows(self) -> int:
        """Sequences in a batch."""
        return self.prompts * self.answers


SMALL = Settings(
    start=StartSettings(
        vocabulary=300,
        layers=2,
        width=64,
        heads=2,
        examples=600,
        prompts=8,
        schedule=Schedule(steps=250, text_rows=1, examples=24, learning_rate=4e-3),
    ),
    prompts=8,
    answers=4,
    response=16,
    kept=(2,),
    learning_rate=1e-3,
    micro_batches=(4, 16),
    probes=(4, DEFAULT_PROBES),
    orders=100,
    seeds=24,
    repeats=2,
)
