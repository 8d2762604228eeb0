"""From a design to jobs of the sweep."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from examples.study import identity, recipe
from examples.study.design import Design
from examples.study.recipe import Point
from examples.study.start import located
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


def starts(study: Path) -> Path:
    """The folder of the models that runs start from.

    Args:
        study: its folder.
    """
    return study / "starts"


def jobs(tier: Tier, design: Design, study: Path) -> list[Job]:
    """One for every point.

    A job says all that its run depends on: what veRL is told, the code, and the packages. A run of
    another `what` is not this job's.

    Args:
        tier: how they run.
        design: what is run.
        study: the folder of everything.
    """
    start, windows = located(starts(study), design.start), design.start.windows
    found = []
    for point in design.points:
        own = study / tier.name / name_of(point)
        arguments = recipe.overrides(point, design.sizes, start, own)
        what = {
            "tier": tier.name,
            "point": asdict(point),
            # A study that is moved to another folder is the same.
            "overrides": [each.replace(f"{study}/", "") for each in arguments],
            "windows": windows,
            "start": design.start.made_of(),
            "code": identity.code(),
            "packages": identity.packages(),
        }
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
