"""The settings by which runs are told apart."""

import re
from collections.abc import Mapping
from typing import Any

from pcr_plugin.plots.logs.log import Log

ACTOR = "actor_rollout_ref.actor."
RULE, BETA, RATE, SCOPE, ALPHA = "rule", "beta", "learning_rate", "scope", "alpha"
# Name in figures and in the table that a user writes -> veRL's key.
NAMED = {
    RULE: ACTOR + "update_rule",
    "preset": ACTOR + "pcr.preset",
    SCOPE: ACTOR + "pcr.scope",
    ALPHA: ACTOR + "pcr.alpha",
    BETA: ACTOR + "kl_loss_coef",
    RATE: ACTOR + "optim.lr",
}
NUMBERS = (ALPHA, BETA, RATE)
STOCK = "stock"  # `update_rule: null`, or a veRL without the plugin
_SEEDS = re.compile(r"(^|\.|_)seed$")
# What a run writes, where, and how often: no difference in what is trained.
_NOT_TRAINING = re.compile(
    r"^trainer\.(project_name|experiment_name|logger|save_freq|test_freq|val_before_train|"
    r"resume_\w+|max_\w+_ckpt_to_keep|log_val_generations|checkpoint_callback_class)$"
    r"|_target_$|_dir$|\.pcr\.(log_blocks|observe_every)$|^ray_kwargs\.|^transfer_queue\.|profiler"
    r"|\.checkpoint\.|port$"
)


def settings_of(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort a configuration.

    Args:
        values: dotted key to value.

    Returns:
        The settings (those of `NAMED` by their short names, the others by veRL's keys) and the
        seeds. Keys of the rule are no settings of a stock run.
    """
    rule = values.get(NAMED[RULE]) or STOCK
    seeds, settings = {}, {}
    for key, value in values.items():
        if _SEEDS.search(key):
            seeds[key] = value
        elif "${" in str(value):  # Hydra's reference to another key; the console prints its value
            continue
        elif not _NOT_TRAINING.search(key) and not (rule == STOCK and f"{ACTOR}pcr." in key):
            settings[key] = _comparable(value)
    named = {short: settings.pop(key) for short, key in NAMED.items() if key in settings}
    named[RULE] = rule
    if settings.get(ACTOR + "use_kl_loss") is False:
        # A coefficient that nothing reads; a penalty in the reward is another kind of beta.
        del settings[ACTOR + "use_kl_loss"]
        named.pop(BETA, None)
        if not settings.get("algorithm.use_kl_in_reward"):
            named[BETA] = 0.0
    return {key: value for key, value in named.items() if value is not None} | settings, seeds


def settings_in(log: Log) -> dict[str, Any]:
    """What the metrics themselves say, for a log without a configuration."""
    found: dict[str, Any] = {}
    if coefficients := log.finite("actor/kl_coef"):
        found[BETA] = next(iter(coefficients.values()))
    if rates := log.finite("actor/lr"):
        found[RATE] = max(rates.values())  # a schedule's peak
    return found


def number(key: str, value: Any) -> float:
    """A setting as a number; YAML reads 1e-6, without a dot, as text.

    Raises:
        ValueError: it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{key}={value!r}: a number is needed") from None


def _comparable(value: Any) -> Any:
    """Hashable; 1 and 1.0 are equal already."""
    if isinstance(value, list | tuple):
        return tuple(_comparable(each) for each in value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
