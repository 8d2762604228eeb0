"""What the demo shows of a run: one line per step, and a table at the end."""

from collections.abc import Mapping

from pcr_plugin.demo.log import RunLog

# heading -> veRL's key
COLUMNS = {
    "reward": "critic/rewards/mean",
    "KL": "actor/kl_loss",
    "conflict": "actor/pcr/conflict_rate",
    "alpha": "actor/pcr/alpha",
    "perplexity": "demo/perplexity",
}


def progress_line(step: int, steps: int, metrics: Mapping[str, float]) -> str:
    """One step, as it happens; perplexity only where it was measured."""
    parts = [
        f"{heading} {_number(metrics[key])}" for heading, key in COLUMNS.items() if key in metrics
    ]
    return f"step {step:>2}/{steps}  " + "  ".join(parts)


def table(log: RunLog, start_perplexity: float) -> str:
    """The steps at which perplexity was measured; the other columns are means since the last.

    Args:
        log: of the run.
        start_perplexity: before the first step.
    """
    measured, _ = log.series(COLUMNS["perplexity"])
    lines = ["step   " + "".join(f"{heading:>12}" for heading in COLUMNS)]
    lines.append(_row(0, ["", "", "", "", _number(start_perplexity)]))
    previous = 0
    for step in measured:
        since = [log.steps[index] for index in range(previous + 1, step + 1)]
        lines.append(_row(step, [_mean(since, key) for key in COLUMNS.values()]))
        previous = step
    return "\n".join(lines)


def _row(step: int, cells: list[str]) -> str:
    return f"{step:>4}   " + "".join(f"{cell:>12}" for cell in cells)


def _mean(rows: list[dict[str, float]], key: str) -> str:
    values = [row[key] for row in rows if key in row]
    return _number(sum(values) / len(values)) if values else "-"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 0.1 else f"{value:.2f}"
