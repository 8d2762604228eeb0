"""Take finished runs to another machine, or into a repository: a study need not end where it began.

    python -m examples.study.kept pack FILE.tar.xz    # the finished runs of outputs/study
    python -m examples.study.kept unpack FILE.tar.xz  # then `python -m examples.study` goes on

Of a run is kept what the sweep, the tables and the figures read: what it is, its configuration and
its log, numbers with six digits and without times of single steps. The start is kept as it is, for
another machine's would differ in the last bits.
"""

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from examples.study import design, jobs
from examples.study.sweep import Job

# Of a run's folder.
_FILES = ("run.json", "done.json", ".hydra/config.yaml", "log.jsonl")
# Nobody reads more of a step than its own time.
_LEFT_OUT = ("timing_s/", "timing_per_token_ms/", "perf/")
_KEPT_TIME = "timing_s/step"


def pack(file: Path, study: Path, finished: Iterable[Job]) -> int:
    """Write an archive; the same runs give the same bytes.

    Args:
        file: of the archive.
        study: its folder. Its name does not enter the archive.
        finished: of all tiers.

    Returns:
        The number of runs.
    """
    runs = sorted(finished, key=lambda job: job.folder)
    starts = sorted(path for path in jobs.starts(study).rglob("*") if path.is_file())
    unfinished = file.with_name(file.name + ".new")
    with tarfile.open(unfinished, "w:xz", preset=9) as archive:
        for path in starts:
            _add(archive, path.relative_to(study), path.read_bytes())
        for run in runs:
            for name in _FILES:
                text = (run.folder / name).read_text().replace(f"{study}/", "")
                text = thinned(text) if name == "log.jsonl" else text
                _add(archive, run.folder.relative_to(study) / name, text.encode())
    unfinished.rename(file)
    return len(runs)


def unpack(file: Path, study: Path) -> list[str]:
    """Put runs where the sweep looks for them; what is there already stays as it is.

    Args:
        file: see `pack`.
        study: folder, also a new one.

    Returns:
        The folders that were made.
    """
    with tarfile.open(file) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        made = sorted({_top(member.name) for member in files})
        new = [folder for folder in made if not (study / folder).exists()]
        wanted = [member for member in files if _top(member.name) in new]
        archive.extractall(study, wanted, filter="data")
    return new


def thinned(log: str) -> str:
    """A log with fewer digits, and of all times that of a step.

    Args:
        log: of veRL's file logger, a JSON object a line.
    """
    return "".join(_thinned_lines(log.splitlines()))


def main(words: Sequence[str] | None = None) -> None:
    """Do it.

    Args:
        words: of the command line.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("outputs/study"), help="folder")
    given = parser.parse_args(words)
    study: Path = given.runs.resolve()
    if given.what == "unpack":
        sys.stderr.write(f"{study}: {len(unpack(given.file, study))} folders\n")
        return
    every = [*jobs.jobs(jobs.ENGINE, design.engine(), study)]
    every += jobs.jobs(jobs.FULL, design.full(), study)
    finished = [job for job in every if job.finished()]
    if not finished:
        # Rather than lose those of an archive that is there.
        sys.exit(f"{study}: no finished run of this design and this code")
    count = pack(given.file, study, finished)
    sys.stderr.write(f"{given.file}: {count} of {len(every)} runs\n")


def _add(archive: tarfile.TarFile, name: Path, content: bytes) -> None:
    member = tarfile.TarInfo(name.as_posix())  # of nobody, of no time
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _top(name: str) -> str:
    """Folder of a run or of a start: the second level."""
    return "/".join(name.split("/")[:2])


def _thinned_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        row = json.loads(line)
        row["data"] = {key: _short(value) for key, value in row["data"].items() if _wanted(key)}
        yield json.dumps(row) + "\n"


def _wanted(key: str) -> bool:
    return key == _KEPT_TIME or not key.startswith(_LEFT_OUT)


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
