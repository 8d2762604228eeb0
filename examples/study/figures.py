"""The pictures of `docs/evidence.md`."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from examples.study import design
from examples.study.recipe import Point
from examples.study.records import MEASURED, point_of
from examples.study.sweep import Job

_FRONT, _FEW = ("stock", *design.FRONT), design.FULL_RULES
_AUTOMATIC = design.CANDIDATES[0]
# Whose strength is said by one number each, and one that has it from variances.
_STRENGTHS = ("soft0.2_floor", "soft0.5_floor", "soft0.8_floor", "pcgrad_floor", _AUTOMATIC)


def _on_front(point: Point) -> bool:
    betas = design.STOCK_BETAS if point.rule == "stock" else design.BETAS
    return point.rule in _FRONT and point.beta in betas and _like(point, beta=point.beta)


def _like(point: Point, **changes: Any) -> bool:
    """Whether a point is the centre but for its rule, its seed and what is said."""
    return point == replace(design.CENTRE, rule=point.rule, seed=point.seed, **changes)


@dataclass(frozen=True)
class Picture:
    """What a picture is of.

    Attributes:
        figure: of `pcr plot`.
        of: whether it shows a run.
        cost: of `MEASURED`, what is lost beside what is learnt.
        named: whether rules have their names. Where the axis is alpha, from the keys of the runs,
            a name per rule would make each rule a line.
    """

    figure: str
    of: Callable[[Point], bool]
    cost: str = "perplexity"
    named: bool = True


# The other figures of `pcr plot` are a reader's to draw.
FIGURES: Mapping[str, Picture] = {
    **{name: Picture(name, _on_front) for name in ("front", "betas", "sensitivity")},
    **{f"{name}_skill": Picture(name, _on_front, "skill loss") for name in ("front", "betas")},
    "alpha_fixed": Picture("alpha_fixed", lambda p: p.rule in _STRENGTHS and _like(p), named=False),
    "learning_rates": Picture(
        "learning_rates",
        lambda p: p.rule in ("stock", *design.FAST_RULES) and _like(p, rate=p.rate),
    ),
    "scopes": Picture("scopes", lambda p: p.rule in design.SCOPED and _like(p, scope=p.scope)),
    "alphas": Picture("alphas", lambda p: p.rule == _AUTOMATIC and _like(p, scope="all")),
    "cosines": Picture("cosines", lambda p: p.rule == "observe" and _like(p, scope="all")),
    "final_cosine": Picture("final_cosine", lambda p: p.rule in design.FRONT and _like(p)),
    "gradient_norms": Picture("gradient_norms", lambda p: p.rule in _FEW and _like(p)),
}


def draw(jobs: Iterable[Job], folder: Path) -> None:
    """Draw what there are runs for.

    Args:
        jobs: of one tier; those that are not finished are left out.
        folder: for the pictures; what was in it is removed.
    """
    points = {job.folder: point_of(job) for job in jobs if job.finished()}
    chosen: dict[tuple[str, ...], list[str]] = {}
    for name, picture in FIGURES.items():
        of_it = {run: point for run, point in points.items() if picture.of(point)}
        words = [str(run / "log.jsonl") for run in of_it]
        if picture.named:
            words += [word for point in of_it.values() for word in ("--label", point.rule)]
        if of_it:
            words += ["--score", MEASURED["solved"], "--perplexity", MEASURED[picture.cost]]
            chosen.setdefault(tuple(words), []).append(name)
    shutil.rmtree(folder, ignore_errors=True)
    for words_of_plot, names in chosen.items():
        folder.mkdir(parents=True, exist_ok=True)
        _draw(words_of_plot, names, folder)


def _draw(words: Sequence[str], names: Sequence[str], folder: Path) -> None:
    from pcr_plugin.cli.main import main as pcr

    with tempfile.TemporaryDirectory() as made:
        status = pcr(["plot", *words, "--out", made])
        if status:
            sys.exit(status)
        for name in names:
            # Of several pages the first.
            figure = FIGURES[name].figure
            for page in (f"{figure}.svg", f"{figure}-1.svg"):
                if (Path(made) / page).exists():
                    shutil.copy(Path(made) / page, folder / f"{name}.svg")
