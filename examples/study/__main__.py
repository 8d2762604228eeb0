"""Run the study, or what of it is not done yet.

    python -m examples.study                  # both tiers, hours; can be stopped and called again
    python -m examples.study --tier engine --only 'seed0$'
    python -m examples.study --small          # a minute
    pcr plot outputs/study/engine --out outputs/study/plots

Exit status: 0 if every run is done, 1 if one failed (the others were run), 130 if it was stopped.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def main(words: Sequence[str] | None = None) -> int:
    """Run it.

    Args:
        words: of the command line.

    Returns:
        The exit status.
    """
    given = _parse(words)
    # As Ctrl-C does: a plain SIGTERM would leave the runs' processes behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _study(given)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tier", choices=("engine", "full", "all"), default="all")
    parser.add_argument("--small", action="store_true", help="two short runs of the engine tier")
    parser.add_argument("--only", default="", help="regular expression, of the runs' names")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--out", type=Path, default=Path("outputs/study"), help="folder")
    parser.add_argument("--list", action="store_true", help="show the runs' names and stop")
    return parser.parse_args(words)


def _study(given: argparse.Namespace) -> int:
    from examples.study import design, jobs
    from examples.study.progress import Progress
    from examples.study.start import prepare
    from examples.study.sweep import sweep

    progress = Progress()
    if given.small:
        tiers = [(jobs.ENGINE, design.small())]
    else:
        both = {"engine": (jobs.ENGINE, design.engine), "full": (jobs.FULL, design.full)}
        names = both if given.tier == "all" else (given.tier,)
        tiers = [(both[name][0], both[name][1]()) for name in names]
    folder: Path = given.out.resolve() / ("small" if given.small else "")
    failed = []
    for tier, wanted in tiers:
        every = jobs.jobs(tier, wanted, folder)
        todo = [each for each in every if re.search(given.only, each.folder.name)]
        if given.list:
            sys.stdout.write("".join(f"{tier.name}/{each.folder.name}\n" for each in todo))
            continue
        prepare(jobs.starts(folder), wanted.start, progress.say)
        progress.say(f"{tier.name} tier: {folder / tier.name}")
        failed += sweep(todo, min(given.workers, tier.workers), tier.preload, progress)
    for each in failed:
        progress.say(f"FAILED {each.job.folder}: {each.reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    # Read when torch and veRL are imported, which is later: here and in every run.
    os.environ |= {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    sys.exit(main())
