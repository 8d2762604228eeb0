"""Keys that cannot be meant together, or would do nothing together."""

import logging

from pcr_plugin.config.checks import reject
from pcr_plugin.config.settings import PCRSettings

logger = logging.getLogger(__name__)

# Rules of ours whose weights a conflict decides about.
PROJECTING = ("pcr", "pcgrad", "soft")


def check_combination(update_rule: str, settings: PCRSettings, *, floor: bool) -> None:
    """Refuse what cannot be meant; warn of what is rarely meant.

    Args:
        update_rule: a known rule.
        settings: the `pcr` block.
        floor: the resolved `pcr.stability_floor`.

    Raises:
        ValueError: names key, value and remedy.
    """
    _check_alpha(update_rule, settings)
    if settings.zero_advantage == "group":
        _check_grouping(settings)
    if settings.combine_signals:
        _check_signals(settings)
    probes = settings.variance.probes
    if probes is not None and settings.variance.estimator != "sequence":
        reject("pcr.variance.probes", probes, "only the estimator 'sequence'")
    if not settings.gate:
        _check_open_gate(update_rule, settings, floor)


def _check_open_gate(update_rule: str, settings: PCRSettings, floor: bool) -> None:
    if settings.min_cosine > 0:
        reject("pcr.min_cosine", settings.min_cosine, "pcr.gate=false reads no cosine; use 0")
    if update_rule not in PROJECTING:
        return
    if floor:
        reject(
            "pcr.gate",
            False,
            "with the floor a block that agrees keeps beta s: nothing changes; use true, or "
            "pcr.stability_floor=false (preset=robust sets it)",
        )
    logger.warning(
        "pcr.gate=false applies Eq. 15 without a conflict too: where the two gradients agree "
        "the KL loss then has a negative weight."
    )


def _check_signals(settings: PCRSettings) -> None:
    key = "pcr.combine_signals"
    if settings.variance.estimator == "micro_batch":
        reject(
            key,
            True,
            "the norm of a micro-batch's p does not follow from p + beta s; use "
            "pcr.variance.estimator=sequence or split_half, or false",
        )
    if settings.passes == "two_forward":
        reject(key, True, "pcr.passes=two_forward computes each gradient by itself; use false")


def _check_grouping(settings: PCRSettings) -> None:
    key, value = "pcr.zero_advantage", "group"
    if settings.variance.estimator == "micro_batch":
        reject(
            key,
            value,
            "the spread of sorted micro-batches is not that of independent ones; use "
            "pcr.variance.estimator=sequence or split_half, or skip",
        )
    if settings.passes == "two_forward" or settings.combine_signals:
        other = "combine_signals=true" if settings.combine_signals else "passes=two_forward"
        reject(key, value, f"pcr.{other} runs every micro-batch backward; use skip")


def _check_alpha(update_rule: str, settings: PCRSettings) -> None:
    if update_rule == "soft" and settings.alpha is None:
        reject("pcr.alpha", None, "update_rule=soft needs a number in [0, 1]")
    if update_rule != "soft" and settings.alpha is not None:
        reject("pcr.alpha", settings.alpha, "only update_rule=soft takes a fixed alpha; leave null")
