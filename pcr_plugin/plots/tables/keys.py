"""Which of a run's metrics are the score and the perplexity."""

from collections.abc import Callable, Iterable, Sequence

from pcr_plugin.plots.logs.log import Log

TRAINING_REWARD = "critic/rewards/mean"
KL = "actor/kl_loss"
GRADIENT_NORM = "actor/grad_norm"
ALPHA = "actor/pcr/alpha"
SECONDS = ("timing_s/step", "perf/time_per_step")
_MOST_SHOWN = 40


def score_key(logs: Sequence[Log], wanted: str | None = None) -> str | None:
    """The validation metric, else the training reward; `None` if neither was logged.

    Args:
        logs: of all runs.
        wanted: the user's choice.

    Raises:
        ValueError: no run has the one that is wanted.
    """
    if wanted:
        return _existing("--score", logs, wanted)
    keys = _most_common(logs, lambda key: key.startswith("val-core/"))
    if keys:
        # mean@n is the accuracy; maj@n and best@n answer other questions
        return min(keys, key=lambda key: ("/mean@" not in key, key))
    return TRAINING_REWARD if any(TRAINING_REWARD in log.metrics() for log in logs) else None


def perplexity_key(logs: Sequence[Log], wanted: str | None = None) -> str | None:
    """The metric named after perplexity, if any; the first one in the alphabet.

    Raises:
        ValueError: no run has the one that is wanted.
    """
    if wanted:
        return _existing("--perplexity", logs, wanted)
    keys = _most_common(logs, lambda key: "perplexity" in key.lower())
    return keys[0] if keys else None


def seconds_key(logs: Sequence[Log]) -> str | None:
    """veRL's time of a whole step."""
    return next((key for key in SECONDS if any(key in log.metrics() for log in logs)), None)


def _most_common(logs: Sequence[Log], fits: Callable[[str], bool]) -> list[str]:
    """Keys that as many runs as possible have."""
    counts: dict[str, int] = {}
    for log in logs:
        for key in log.metrics():
            if fits(key):
                counts[key] = counts.get(key, 0) + 1
    most = max(counts.values(), default=0)
    return sorted(key for key in counts if counts[key] == most)


def _existing(option: str, logs: Iterable[Log], wanted: str) -> str:
    keys: set[str] = set().union(*(log.metrics() for log in logs))
    if wanted in keys:
        return wanted
    shown = sorted(key for key in keys if not key.startswith(("perf/", "timing_", "actor/pcr/")))
    more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    raise ValueError(
        f"{option} {wanted}: no run has it; logged are {', '.join(shown[:_MOST_SHOWN])}{more}"
    )
