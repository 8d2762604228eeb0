"""What the runs of a study came to: a record per run, which is what is kept of them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from examples.study.recipe import Point
from pcr_plugin.plots.logs import json_lines
from pcr_plugin.plots.logs.log import Log

# Of a run's end.
_SOLVED = "study/solved/chain_sum"
AT_THE_END = {
    "solved": _SOLVED,
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
        start: measured before the first step, a part of `AT_THE_END`.
        found: measured at the end, and over the steps; what the run did not log is not there.
    """

    tier: str
    point: Point
    start: dict[str, float]
    found: dict[str, float]

    def rise(self, name: str) -> float | None:
        """End minus start, if it was measured.

        Args:
            name: of `AT_THE_END`.
        """
        measured = name in self.found and name in self.start
        return self.found[name] - self.start[name] if measured else None


def collect(folder: Path) -> list[Record]:
    """The finished runs of a study, in the order of their names.

    Args:
        folder: of the study; has a folder per tier.
    """
    done = sorted(folder.glob("*/*/done.json"))
    return [_record(path.parent) for path in done]


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
    point = json.loads((run / "run.json").read_text())["point"]
    log = json_lines.read(run / "log.jsonl")
    ends = {name: list(log.finite(metric).values()) for name, metric in AT_THE_END.items()}
    start = {name: _rounded(values[0]) for name, values in ends.items() if values}
    found = {name: _rounded(values[-1]) for name, values in ends.items() if values}
    return Record(run.parent.name, Point(**point), start, found | dict(_over_steps(log)))


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
