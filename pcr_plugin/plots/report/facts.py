"""What a reader must know of the runs and of the report itself."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from pcr_plugin.plots.runs.groups import Group, differing, seeds_of, shown
from pcr_plugin.plots.runs.run import Run
from pcr_plugin.plots.runs.settings import NAMED
from pcr_plugin.plots.tables.keys import TRAINING_REWARD
from pcr_plugin.plots.tables.study import Study

# Of those that all runs share; the whole configuration may hold what is not for others' eyes.
_OF_INTEREST = (
    *NAMED.values(),
    "algorithm.adv_estimator",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.actor.strategy",
    "actor_rollout_ref.actor.kl_loss_type",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    "actor_rollout_ref.actor.optim.weight_decay",
    "actor_rollout_ref.actor.pcr.block",
    "actor_rollout_ref.actor.pcr.gate",
    "actor_rollout_ref.actor.pcr.min_cosine",
    "actor_rollout_ref.actor.pcr.stability_floor",
    "actor_rollout_ref.actor.pcr.variance.ema",
    "actor_rollout_ref.actor.pcr.variance.estimator",
    "actor_rollout_ref.actor.pcr.variance.scale",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "data.train_batch_size",
    "data.train_files",
    "data.val_files",
    "data.max_prompt_length",
    "data.max_response_length",
    "trainer.n_gpus_per_node",
    "trainer.nnodes",
    "trainer.total_training_steps",
)
_MOST_KEYS = 20  # in a note
_PACKAGES = ("pcr-plugin", "verl", "matplotlib")


@dataclass(frozen=True)
class Facts:
    """Texts of the report, none of them escaped.

    Attributes:
        title: of the page.
        explanation: below the table.
        settings: veRL's key and the values that occur.
        runs: name, configuration, seed, log, its kind, where the settings are from.
        notes: what a reader might take wrongly without them.
        made: versions and date.
    """

    title: str
    explanation: str
    settings: list[tuple[str, str]]
    runs: list[tuple[str, ...]]
    notes: list[str]
    made: str


def facts_of(study: Study, now: datetime) -> Facts:
    """Collect them.

    Args:
        study: the runs.
        now: when the report is made.
    """
    count = sum(len(group.runs) for group in study.groups)
    return Facts(
        title=f"{count} veRL run{'s' if count > 1 else ''}",
        explanation=_explanation(study),
        settings=_settings([run for group in study.groups for run in group.runs]),
        runs=[row for group in study.groups for row in _rows(group)],
        notes=[*_notes(study)],
        made=f"{_versions()}; {now:%Y-%m-%d %H:%M %Z}. These are the versions that made this "
        "report; a log does not say which ones trained.",
    )


def _explanation(study: Study) -> str:
    parts = ["Mean ± standard error over seeds; no error with one seed."]
    if study.score:
        parts.append(f"Score: {study.score}.")
    if study.score == TRAINING_REWARD:
        parts.append("It is the reward in training, as no validation was logged.")
    if study.perplexity:
        parts.append(
            f"Perplexity: {study.perplexity}; its change is against the first value logged."
        )
    parts.append(
        "Score, perplexity and KL are the mean of the last tenth of a run's values; the gradient "
        "norm's mean and variance are over all steps of a run."
    )
    return " ".join(parts)


def _settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    short = {key: name for name, key in NAMED.items()}
    rows = []
    for key in _OF_INTEREST:
        own = short.get(key, key)
        values = dict.fromkeys(shown(run.settings[own]) for run in runs if own in run.settings)
        if values:
            rows.append((key, ", ".join(values)))
    return rows


def _rows(group: Group) -> list[tuple[str, ...]]:
    seeds = seeds_of(group.runs)
    return [
        (
            run.name,
            group.name,
            seed or "–",
            str(run.file.path),
            run.file.kind,
            _source(run),
        )
        for run, seed in zip(group.runs, seeds, strict=True)
    ]


def _source(run: Run) -> str:
    if run.source is not None:
        return str(run.source)
    return "the metrics, or what was given" if run.settings else "–"


def _notes(study: Study) -> list[str]:
    notes = []
    named = {key for group in study.groups for key in group.varying}
    others = [
        key
        for key in differing([run for group in study.groups for run in group.runs])
        if key not in named
    ]
    if others:
        notes.append(f"The runs also differ in {_some(others)}, which their names do not show")
    for group in study.groups:
        seeds = seeds_of(group.runs)
        if len(set(seeds)) < len(seeds):
            notes.append(
                f"{group.name}: {len(seeds)} runs with the same or unknown seeds are taken as "
                "repetitions; if they are copies of one run, the intervals are too narrow"
            )
        notes += [
            f"{run.name}: {bad} values that are NaN or infinite are left out"
            for run in group.runs
            if (bad := run.log.not_finite())
        ]
    return notes


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _MOST_KEYS} more" if len(keys) > _MOST_KEYS else ""
    return ", ".join(keys[:_MOST_KEYS]) + more


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
