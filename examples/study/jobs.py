"""From points of a design to jobs of the sweep."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from examples.study import recipe
from examples.study.recipe import Point, Sizes
from examples.study.rules import RULES
from examples.study.start import Start
from examples.study.sweep import Job


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A way to run points.

    Attributes:
        name: also of the folder.
        train: takes Hydra overrides, rows of held-out text, and the run's folder.
        preload: modules that every run needs.
        workers: processes at a time, at most.
    """

    name: str
    train: Callable[[list[str], int, Path], None]
    preload: tuple[str, ...]
    workers: int


def train_engine(arguments: list[str], windows: int, folder: Path) -> None:
    """See `examples.study.engine.run.train`; imported where it runs, for it takes seconds."""
    from examples.study.engine.run import train

    train(arguments, windows, folder)


def train_full(arguments: list[str], windows: int, folder: Path) -> None:
    """See `examples.study.full.train`."""
    from examples.study.full import train

    train(arguments, windows, folder)


ENGINE = Tier(
    name="engine",
    train=train_engine,
    preload=("examples.study.engine.run", "verl.workers.engine.fsdp.transformer_impl"),
    workers=2,
)
# A run of Ray and vLLM is half a dozen processes.
FULL = Tier(name="full", train=train_full, preload=(), workers=1)


def jobs(
    tier: Tier, points: Iterable[Point], sizes: Sizes, start: Start, windows: int, folder: Path
) -> list[Job]:
    """One for every point.

    Args:
        tier: how they run.
        points: each once.
        sizes: of all runs.
        start: of all runs.
        windows: rows of held-out text that are measured.
        folder: of the tier's runs.
    """
    found = []
    for point in points:
        own = folder / name_of(point)
        what = {
            "tier": tier.name,
            "point": asdict(point),
            "rule": dict(RULES[point.rule]),
            "sizes": asdict(sizes),
            "settings": recipe.SETTINGS,
            "windows": windows,
            "start": start.about()["settings"],
        }
        arguments = recipe.overrides(point, sizes, start, own)
        found.append(Job(own, what, tier.train, (arguments, windows, own)))
    return found


def name_of(point: Point) -> str:
    """A run's folder.

    Args:
        point: see there.
    """
    scope = f"-{point.scope}" if point.scope != "mlp" else ""
    prompts = f"-prompts{point.prompts}" if point.prompts is not None else ""
    return f"{point.rule}{scope}-beta{point.beta:g}-lr{point.rate:g}{prompts}-seed{point.seed}"
