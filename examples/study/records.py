"""What the runs of a study came to: a record per run, which is what is kept of them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from examples.study.recipe import GRAD_CLIP, Point
from examples.study.sweep import Job
from pcr_plugin.plots.logs import json_lines
from pcr_plugin.plots.logs.log import Log

# Measured at the start, every few steps, and at the end.
MEASURED = {
    "solved": "study/solved/chain_sum",
    "carried over": "study/solved/products",
    "pass@1": "val-core/chain_sum/acc/mean@1",
    "skill": "study/skill",
    "skill loss": "study/skill_loss",
    "perplexity": "study/perplexity",
    "KL on answers": "study/kl_answers",
    "KL on text": "study/kl_text",
}
# Over all steps.
_MEANS = {
    "alpha": "actor/pcr/alpha",
    "effective beta": "actor/pcr/beta_eff",
    "conflicts": "actor/pcr/conflict_rate",
    "cosine": "actor/pcr/cos",
    "seconds of a step": "timing_s/step",
}
_GRADIENT_NORM = "actor/grad_norm"


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        tier: the way it was run.
        point: what it differs in.
        measured: of `MEASURED`, the values from step to step; the first is the start's.
        steps: at which they were.
        means: over all steps; what the run did not log is not there.
        seconds: that it took, beside what else the machine did.
    """

    tier: str
    point: Point
    steps: list[int]
    measured: dict[str, list[float]]
    means: dict[str, float]
    seconds: float

    def at(self, name: str, step: int | None = None) -> float | None:
        """What was measured, if it was.

        Args:
            name: of `MEASURED`.
            step: the last one unless it is said.
        """
        values = self.measured.get(name)
        if values is None or (step is not None and step not in self.steps):
            return None
        return values[-1 if step is None else self.steps.index(step)]

    def rise(self, name: str, step: int | None = None) -> float | None:
        """What was measured minus what it was at the start.

        Args:
            name: of `MEASURED`.
            step: the last one unless it is said.
        """
        value = self.at(name, step)
        return None if value is None else value - self.measured[name][0]


@dataclass(frozen=True)
class Found:
    """The records of a study.

    Attributes:
        records: of all tiers.
        made_by: the code that all of them were made by, and the versions of the packages; empty
            without records.
    """

    records: list[Record]
    made_by: dict[str, str]


def collect(jobs: Iterable[Job]) -> Found:
    """What has been run of them, in the order of their names.

    A folder that an older design or other code has left is not one of them.

    Args:
        jobs: of all tiers, made together: of one code and with the same packages.
    """
    done = sorted((job for job in jobs if job.finished()), key=lambda job: job.folder)
    made_by = {"code": done[0].what["code"], **done[0].what["packages"]} if done else {}
    return Found([_record(job) for job in done], made_by)


def point_of(job: Job) -> Point:
    """What a run is.

    Args:
        job: of the run.
    """
    return Point(**job.what["point"])


def write(path: Path, found: Found) -> None:
    """Write records, a line each, so that a change of one is a change of one line.

    Args:
        path: of the JSON file.
        found: see above.
    """
    lines = ",\n".join(json.dumps(asdict(record)) for record in found.records)
    made_by = json.dumps(found.made_by)
    path.write_text(f'{{"made_by": {made_by}, "runs": [\n{lines}\n]}}\n')


def read(path: Path) -> Found:
    """What `write` has written.

    Args:
        path: of the JSON file.
    """
    found = json.loads(path.read_text())
    records = [Record(**(row | {"point": Point(**row["point"])})) for row in found["runs"]]
    return Found(records, found["made_by"])


def _record(job: Job) -> Record:
    run = job.folder
    log = json_lines.read(run / "log.jsonl")
    series = {name: log.finite(metric) for name, metric in MEASURED.items()}
    steps = sorted(set().union(*series.values()))
    measured = {
        name: [_rounded(values[step]) for step in steps]
        for name, values in series.items()
        if len(values) == len(steps)
    }
    seconds = json.loads((run / "done.json").read_text())["seconds"]
    means = dict(_over_steps(log))
    return Record(job.what["tier"], point_of(job), steps, measured, means, round(seconds))


def _over_steps(log: Log) -> Iterator[tuple[str, float]]:
    for name, metric in _MEANS.items():
        values = list(log.finite(metric).values())
        if values:
            yield name, _rounded(fmean(values))
    norms = list(log.finite(_GRADIENT_NORM).values())
    yield "gradient norm", _rounded(fmean(norms))
    yield "deviation of the gradient norm", _rounded(stdev(norms))
    yield "clipped steps", _rounded(fmean(norm > GRAD_CLIP for norm in norms))


def _rounded(value: float) -> float:
    # More digits are noise, and a file for people to read.
    return float(f"{value:.5g}")
