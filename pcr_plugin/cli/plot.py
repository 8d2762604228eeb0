"""`pcr plot RUN...`: the paper's figures and a report, from the logs of veRL runs."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

_EXTRA = '"pcr-plugin[plot]"'
_DESCRIPTION = """\
Draw the figures of the PCR paper from the logs of veRL runs, with a rule or without, and write
them (PNG and SVG) together with report.html, one page that needs nothing else.

A RUN is a log of veRL's file logger (JSON lines), a TensorBoard event file, the saved output of
the console, or a folder with such logs in it or below. Rule, beta, learning rate, scope and seed
are read from Hydra's .hydra/config.yaml or from what veRL printed; runs that differ in nothing but
the seed become one curve with a 95 % interval. Where a log has no configuration beside it, say
what it is with --label or --runs. A figure that the runs have no data for is left out, and the
report says what it needs."""
_EPILOG = """\
a table for --runs (YAML; only `path` is needed, relative to the table):
  runs:
    - {path: a.jsonl, rule: pcr, preset: robust, scope: mlp, beta: 0.05, seed: 1}
    - {path: b.jsonl, rule: soft, alpha: 0.5, learning_rate: 1e-6, seed: 1}
    - {path: c.jsonl, label: my method, beta: 0.05}"""


def run(arguments: Sequence[str]) -> int:
    """Write the report.

    Args:
        arguments: see `pcr plot --help`.

    Returns:
        0 if it is written, 1 if a package is missing, 2 if the input is no good.
    """
    options = _parse(arguments)
    try:
        _plot(options)
    except ImportError as error:
        hint = "" if _EXTRA in str(error) else f": pip install {_EXTRA}"
        sys.stderr.write(f"pcr plot: {error}{hint}\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"pcr plot: {error}\n")
        return 2
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="pcr plot",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="a log or a folder")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        help="a name for a RUN, once for each of them in their order; runs of one name that agree "
        "in rule, beta, learning rate, scope and alpha are seeds of one curve",
    )
    parser.add_argument("--runs", type=Path, dest="table", help="a table of runs, see below")
    parser.add_argument("--score", metavar="KEY", help="metric; default: the first val-core/*")
    parser.add_argument("--perplexity", metavar="KEY", help="metric; default: by its name")
    parser.add_argument("--out", type=Path, default=Path("plots"), help="folder; default: plots")
    return parser.parse_args(arguments)


def _plot(options: argparse.Namespace) -> None:
    # Imported here, so that `--help` needs no matplotlib.
    from pcr_plugin.plots.report.write import check_folder, write
    from pcr_plugin.plots.runs.run import name_runs, read_runs
    from pcr_plugin.plots.runs.table import read_table
    from pcr_plugin.plots.tables.study import study_of

    check_folder(options.out)
    named = name_runs(options.runs, options.label)
    if options.table:
        named += read_table(options.table)
    study = study_of(read_runs(named), options.score, options.perplexity)
    files, missing = write(study, options.out, datetime.now().astimezone())
    for group in study.groups:
        sys.stdout.write(
            f"{group.name}: {len(group.runs)} run{'s' if len(group.runs) > 1 else ''}\n"
        )
    for each in missing:
        sys.stdout.write(f"left out: {each.title} (needs {each.needs})\n")
    sys.stdout.write(f"{len(files) - 1} files of figures and {files[0]}\n")
