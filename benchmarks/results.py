"""The file of results: written after every layout, so that an interrupted run loses one."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Report = dict[str, Any]
logger = logging.getLogger(__name__)

# What all layouts of a file have in common; a date and a number of repeats each has of its own.
_SAME = ("device", "machine", "versions", "ranks", "model", "workload")
# By the names of the layouts.
_OF_LAYOUTS = ("dates", "repeated", "layouts", "results")


def kept(path: Path, conditions: Mapping[str, Any]) -> Report:
    """What a file has of layouts that are not measured again.

    Args:
        path: of the file, which need not exist.
        conditions: of the run that begins; where the file has others, nothing of it is kept.

    Returns:
        A report with these conditions and the layouts of the file.
    """
    empty: Report = {**conditions, **{key: {} for key in _OF_LAYOUTS}, "parts": []}
    if not path.exists():
        return empty
    found = json.loads(path.read_text())
    # As the file has them: a tuple in the workload is a list there.
    asked = json.loads(json.dumps(conditions))
    changed = [name for name in _SAME if found.get(name) != asked[name]]
    if changed or "dates" not in found:
        logger.warning("%s is replaced: %s differ", path, ", ".join(changed) or "its dates")
        return empty
    repeated = found.get("repeated", dict.fromkeys(found["results"], found["repeats"]))
    return {**found, "repeated": repeated, **conditions}


def add(
    report: Report, name: str, changes: Mapping[str, Any], results: Mapping[str, Any], parts: bool
) -> None:
    """Put a layout into a report, in the place of an older one.

    Args:
        report: that is changed.
        name: of the layout.
        changes: what is different in its workload.
        results: per variant, see `measure`.
        parts: whether the page shows where the time goes.
    """
    report["dates"][name] = report["date"]
    report["repeated"][name] = report["repeats"]
    report["layouts"][name] = dict(changes)
    report["results"][name] = dict(results)
    report["parts"] = [part for part in report["parts"] if part != name] + [name] * parts


def write(path: Path, report: Report, order: Iterable[str]) -> None:
    """Write a report.

    Args:
        path: of the file.
        report: what is written.
        order: of the layouts; those that it does not name are left out, since nothing can
            measure them any more.
    """
    names = [name for name in order if name in report["results"]]
    sorted_by_name = {key: {name: report[key][name] for name in names} for key in _OF_LAYOUTS}
    parts = [name for name in names if name in report["parts"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**report, **sorted_by_name, "parts": parts}, indent=2) + "\n")
