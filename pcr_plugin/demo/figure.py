"""A run in one picture: reward, perplexity, and the cosine of the two gradients per block."""

from pathlib import Path
from typing import Any

from pcr_plugin.demo.log import RunLog
from pcr_plugin.demo.table import COLUMNS
from pcr_plugin.plots.tables.blocks import block_curves


def block_cosines(log: RunLog) -> dict[str, tuple[list[int], list[float]]]:
    """Block name to its steps and cosines; empty for a stock run."""
    return {name: (each.steps, each.means) for name, each in block_curves([log], "cos").items()}


def draw(runs: dict[str, RunLog], start_perplexity: float, path: Path) -> None:
    """Write a PNG.

    Args:
        runs: rule to log; the first is this run, the others were found beside it.
        start_perplexity: before the first step.
        path: of the file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(7, 9), sharex=True, layout="constrained")
    for rule, log in runs.items():
        axes[0].plot(*log.series(COLUMNS["reward"]), label=rule)
        steps, values = log.series(COLUMNS["perplexity"])
        axes[1].plot([0, *steps], [start_perplexity, *values], marker="o", label=rule)
    _cosines(axes[2], next(iter(runs.values())))
    axes[0].set_ylabel("reward (mean of the batch)")
    axes[1].set_ylabel("perplexity of held-out text")
    axes[2].set_ylabel("cosine of surrogate and KL gradient")
    axes[2].set_xlabel("step")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _cosines(axis: Any, log: RunLog) -> None:
    cosines = block_cosines(log)
    axis.axhline(0, color="grey", linewidth=0.5)
    for name, series in cosines.items():
        axis.plot(*series, label=name)
    if cosines:
        axis.legend(fontsize="small")
    else:
        axis.text(
            0.5,
            0.5,
            "a stock update does not take its gradients apart",
            ha="center",
            va="center",
            transform=axis.transAxes,
        )
