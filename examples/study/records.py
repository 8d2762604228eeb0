"""What the runs of a study came to: a record per run, which is what is kept of them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from examples.study.recipe import Point
from pcr_plugin.plots.logs import json_lines
from pcr_plugin.plots.logs.log import Log

# Measured at the start, every few steps, and at the end.
MEASURED = {
    "solved": "study/solved/chain_sum",
    "carried over": "study/solved/products",
    "pass@1": "val-core/chain_sum/acc/mean@1",
    "skill": "study/skill",
    "perplexity": "study/perplexity",
    "KL on answers": "study/kl_answers",
    "KL on text": "study/kl_text",
}
# Over all steps.
_MEANS = {
    "alpha": "actor/pcr/alpha",
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


def collect(folder: Path) -> list[Record]:
    """The finished runs of a study, in the order of their names.

    Args:
        folder: of the study; has a folder per tier.
    """
    done = sorted(folder.glob("*/*/done.json"))
    return [_record(path.parent) for path in done]


def point_of(run: Path) -> Point:
    """What a run is.

    Args:
        run: its folder.
    """
    return Point(**json.loads((run / "run.json").read_text())["point"])


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records, a line each, so that a change of one is a change of one line.

    Args:
        path: of the JSON file.
        records: see above.
    """
    lines = ",\n".join(json.dumps(asdict(record)) for record in records)
    path.write_text(f"[\n{lines}\n]\n")


def read(path: Path) -> list[Record]:
    """What `write` has written.

    Args:
        path: of the JSON file.
    """
    found = json.loads(path.read_text())
    return [Record(**(row | {"point": Point(**row["point"])})) for row in found]


def _record(run: Path) -> Record:
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
    return Record(run.parent.name, point_of(run), steps, measured, means, round(seconds))


def _over_steps(log: Log) -> Iterator[tuple[str, float]]:
    for name, metric in _MEANS.items():
        values = list(log.finite(metric).values())
        if values:
            yield name, _rounded(fmean(values))
    norms = list(log.finite(_GRADIENT_NORM).values())
    yield "gradient norm", _rounded(fmean(norms))
    yield "deviation of the gradient norm", _rounded(stdev(norms))


def _rounded(value: float) -> float:
    # More digits are noise, and a file for people to read.
    return float(f"{value:.5g}")
