"""Everything that is plotted, and which metrics are the score and the perplexity."""

from collections.abc import Sequence
from dataclasses import dataclass

from pcr_plugin.plots.logs.log import Log
from pcr_plugin.plots.runs.groups import Group, group
from pcr_plugin.plots.runs.run import Run
from pcr_plugin.plots.tables.keys import TRAINING_REWARD, perplexity_key, score_key


@dataclass(frozen=True)
class Study:
    """The runs of one report.

    Attributes:
        groups: one per configuration.
        score: metric, `None` if none was logged.
        perplexity: metric, `None` if none was logged.
    """

    groups: list[Group]
    score: str | None
    perplexity: str | None

    @property
    def logs(self) -> list[Log]:
        """Of all runs."""
        return [log for group in self.groups for log in group.logs]

    @property
    def score_name(self) -> str:
        """For an axis."""
        return "training reward" if self.score == TRAINING_REWARD else "score"

    @property
    def perplexity_name(self) -> str:
        """For an axis; the user's choice may be any metric of which less is better."""
        return "perplexity" if "perplexity" in (self.perplexity or "perplexity").lower() else "cost"


def study_of(runs: Sequence[Run], score: str | None = None, perplexity: str | None = None) -> Study:
    """Group the runs and choose the metrics.

    Args:
        runs: at least one.
        score: the user's choice; a validation metric, else the training reward, if `None`.
        perplexity: the user's choice; a metric named after it if `None`.

    Raises:
        ValueError: no run has the metric that the user chose.
    """
    logs = [run.log for run in runs]
    return Study(group(runs), score_key(logs, score), perplexity_key(logs, perplexity))
