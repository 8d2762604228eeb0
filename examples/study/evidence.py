"""Bring `docs/evidence.md` up to date with the runs.

    python -m examples.study.evidence                # the finished runs of outputs/study
    python -m examples.study.evidence --keep         # tables alone, of the records that are kept

Written are the records (`evidence.json`), the figures of `pcr plot` (`evidence/`), and the tables
and pictures of the page, each in the place of what stands between its marks. The words are a
person's.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.study import design, jobs
from examples.study.contents import tables
from examples.study.figures import FIGURES, draw
from examples.study.records import collect, read, write

_PLACE = re.compile(
    r"(<!-- (?P<kind>table|figure): (?P<name>[\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL
)


def filled(page: str, made: Mapping[str, str], folder: Path) -> str:
    """A page with its tables and pictures replaced.

    Args:
        page: with places such as `<!-- table: front -->` and `<!-- figure: front -->`, each up to
            `<!-- end -->`.
        made: tables by name.
        folder: of the page. A picture that is not in its `evidence` leaves its place empty.

    Raises:
        ValueError: a place for a table or a figure that there is none of.
    """

    def put(place: re.Match[str]) -> str:
        kind, name = place["kind"], place["name"]
        allowed = made if kind == "table" else FIGURES
        if name not in allowed:
            raise ValueError(f"no {kind} {name!r}; there are {', '.join(allowed)}")
        content = made[name].strip() if kind == "table" else _picture(folder, name)
        return f"{place[1]}\n{content}\n\n{place[4]}" if content else f"{place[1]}{place[4]}"

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
        study = given.runs.resolve()
        engine = jobs.jobs(jobs.ENGINE, design.engine(), study)
        found = collect([*engine, *jobs.jobs(jobs.FULL, design.full(), study)])
        if not found.records:
            # Rather than lose those that are kept.
            sys.exit(f"{study}: no finished run of this design and this code")
        write(kept, found)
        draw(engine, given.out / "evidence")
    page.write_text(filled(page.read_text(), tables(read(kept)), given.out))


def _picture(folder: Path, name: str) -> str:
    place = f"evidence/{name}.svg"
    return f"![{name.replace('_', ' ')}]({place})" if (folder / place).exists() else ""


if __name__ == "__main__":
    main()
