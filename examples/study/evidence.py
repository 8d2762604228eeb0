"""Bring `docs/evidence.md` up to date with the runs.

    python -m examples.study.evidence                # the finished runs of outputs/study
    python -m examples.study.evidence --keep         # tables alone, of the records that are kept

Written are the records (`evidence.json`), the tables of the page, each in the place of the one that
stands between its marks, and the figures of `pcr plot` (`evidence/`). The words are a person's.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from examples.study import design
from examples.study.comparison import Runs, by_point
from examples.study.recipe import Point
from examples.study.records import MEASURED, Record, collect, point_of, read, write
from examples.study.rules import RULES
from examples.study.tables import (
    coverage_table,
    difference_table,
    front_table,
    point_table,
    prediction_table,
)

_CENTRE, _MAIN = design.CENTRE, design.MAIN
# The pictures of the page, and the runs that each is of. The others are a reader's to draw.
FIGURES: dict[str, Callable[[Point], bool]] = {
    **dict.fromkeys(
        ("front", "betas", "sensitivity"),
        lambda p: p.rule in _MAIN and _like(p, rule=p.rule, beta=p.beta),
    ),
    "alpha_fixed": lambda p: _like(p, rule=p.rule),
    "learning_rates": lambda p: p.rule in _MAIN and _like(p, rule=p.rule, rate=p.rate),
    "scopes": lambda p: p.rule in _MAIN and _like(p, rule=p.rule, scope=p.scope),
    "alphas": lambda p: _like(p, rule=design.CANDIDATES[0], scope="all"),
    "cosines": lambda p: _like(p, rule="observe", scope="all"),
    "gradient_norms": lambda p: p.rule in _MAIN and _like(p, rule=p.rule),
}
# Its axis is alpha, from the keys of the runs: a name per rule would make each rule a line.
_BY_KEYS = ("alpha_fixed",)
_PLACE = re.compile(r"(<!-- table: (?P<name>[\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_OTHERS = tuple(rule for rule in RULES if rule not in ("stock", "observe"))


def tables(records: Sequence[Record]) -> Mapping[str, str]:
    """The tables by name.

    Args:
        records: of all tiers.
    """
    engine, full = (
        by_point(record for record in records if record.tier == tier) for tier in ("engine", "full")
    )
    centre, noisy = design.CENTRE, design.NOISY
    front = (*design.MAIN, *design.BESIDE)
    betas = [replace(centre, beta=beta) for beta in design.BETAS]
    noisy_rules = design.NOISY_RULES
    noisy_betas = [replace(noisy, beta=beta) for beta in design.MIDDLE]
    full_betas = [replace(centre, beta=beta) for beta in design.FULL_BETAS]
    made: dict[str, Callable[[], str]] = {
        "runs": lambda: coverage_table(
            records, {"engine": design.engine().points, "full": design.full().points}
        ),
        "front": lambda: _points(engine, betas, front),
        "front tests": lambda: difference_table(engine, front[1:], betas, "stock"),
        "front prices": lambda: front_table(engine, front[1:], betas, design.BETAS),
        "rules": lambda: _points(engine, [centre], RULES),
        "rules tests": lambda: difference_table(engine, _OTHERS, [centre], "stock"),
        "rules prices": lambda: front_table(engine, _OTHERS, [centre], design.BETAS),
        "rules against one": lambda: difference_table(engine, _OTHERS, [centre], "pcgrad_floor"),
        "rates": lambda: _points(
            engine, [replace(centre, rate=rate) for rate in design.RATES], design.MAIN
        ),
        "scopes": lambda: _points(
            engine, [replace(centre, scope=scope) for scope in design.SCOPES], design.PROJECTED
        ),
        "noisy": lambda: _points(engine, noisy_betas, noisy_rules),
        "noisy tests": lambda: difference_table(engine, noisy_rules[1:], noisy_betas, "stock"),
        "noisy against one": lambda: difference_table(
            engine, noisy_rules[2:], noisy_betas, "pcgrad_floor"
        ),
        "full": lambda: _points(full, full_betas, design.MAIN),
        "full tests": lambda: difference_table(full, design.MAIN[1:], full_betas, "stock"),
        "prediction": lambda: prediction_table(
            engine,
            full,
            [replace(point, rule=rule) for rule in design.MAIN for point in full_betas],
            design.FULL_SIZES.steps,
        ),
    }
    return {name: make() for name, make in made.items()}


def filled(page: str, made: Mapping[str, str]) -> str:
    """A page with its tables replaced.

    Args:
        page: with places such as `<!-- table: front -->`, up to `<!-- end -->`.
        made: tables by name.

    Raises:
        ValueError: a place for a table that there is none of.
    """

    def put(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in made:
            raise ValueError(f"no table {name!r}; there are {', '.join(made)}")
        return f"{place[1]}\n{made[name].strip()}\n\n{place[3]}"

    return _PLACE.sub(put, page)


def main(words: Sequence[str] | None = None) -> None:
    """Do it.

    Args:
        words: of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("outputs/study"), help="folder")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page")
    parser.add_argument("--keep", action="store_true", help="no new records, no figures")
    given = parser.parse_args(words)
    kept, page = given.out / "evidence.json", given.out / "evidence.md"
    if not given.keep:
        write(kept, collect(given.runs))
        draw(given.runs / "engine", given.out / "evidence")
    page.write_text(filled(page.read_text(), tables(read(kept))))


def draw(runs: Path, folder: Path) -> None:
    """Draw the page's figures.

    Args:
        runs: of one tier; those that are not finished are left out.
        folder: for the pictures.
    """
    points = {done.parent: point_of(done.parent) for done in sorted(runs.glob("*/done.json"))}
    chosen: dict[tuple[str, ...], list[str]] = {}
    for name, wanted in FIGURES.items():
        of_it = {run: point for run, point in points.items() if wanted(point)}
        words = [str(run / "log.jsonl") for run in of_it]
        if name not in _BY_KEYS:
            words += [word for point in of_it.values() for word in ("--label", point.rule)]
        chosen.setdefault(tuple(words), []).append(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for runs_and_labels, names in chosen.items():
        if runs_and_labels:
            _draw(runs_and_labels, names, folder)


def _draw(words: Sequence[str], names: Sequence[str], folder: Path) -> None:
    from pcr_plugin.cli.main import main as pcr

    with tempfile.TemporaryDirectory() as made:
        status = pcr(["plot", *words, "--out", made, "--score", MEASURED["solved"]])
        if status:
            sys.exit(status)
        for name in names:
            # Of several pages the first.
            for page in (f"{name}.svg", f"{name}-1.svg"):
                if (Path(made) / page).exists():
                    shutil.copy(Path(made) / page, folder / f"{name}.svg")


def _like(point: Point, **changes: Any) -> bool:
    """Whether a point is the centre but for its seed and what is said."""
    return point == replace(_CENTRE, seed=point.seed, **changes)


def _points(runs: Runs, points: Sequence[Point], rules: Iterable[str]) -> str:
    return point_table(runs, [replace(point, rule=rule) for rule in rules for point in points])


if __name__ == "__main__":
    main()
