"""From settings to the resolved rule that the update executes."""

import logging
from dataclasses import dataclass

from pcr_plugin.config.checks import reject
from pcr_plugin.config.presets import PRESETS
from pcr_plugin.config.settings import DEFAULT_PROBES, PCRSettings

logger = logging.getLogger(__name__)

RULES = ("pcr", "pcgrad", "soft", "sum", "observe")
# Before the name of a weighting of TorchJD.
TORCHJD_PREFIX = "torchjd:"


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """A rule with every open question answered.

    Args:
        name: one of `RULES`, or `torchjd:<Weighting>`.
        settings: the user's settings, for scope, blocks and logging.
        scale: resolved `pcr.variance.scale`.
        ema: resolved `pcr.variance.ema`.
        stability_floor: resolved `pcr.stability_floor`.
        probes: resolved `pcr.variance.probes`; 0 for the estimators that have none.
    """

    name: str
    settings: PCRSettings
    scale: str
    ema: float
    stability_floor: bool
    probes: int = 0

    @property
    def needs_variance(self) -> bool:
        """Whether the weights depend on the two variances."""
        return self.name == "pcr"

    @property
    def weighting(self) -> str | None:
        """The weighting of TorchJD that decides in a conflict; `None` for our own rules."""
        if self.name.startswith(TORCHJD_PREFIX):
            return self.name.removeprefix(TORCHJD_PREFIX)
        return None

    @property
    def observes(self) -> bool:
        """Whether the update itself is the host's own."""
        return self.name == "observe"

    def describe(self) -> str:
        """The resolved values on one line, as they are logged at start."""
        settings = self.settings
        return (
            f"update_rule={self.name} preset={settings.preset} scope={settings.scope} "
            f"block={settings.block} alpha={settings.alpha} "
            f"variance.estimator={settings.variance.estimator} variance.scale={self.scale} "
            f"variance.ema={self.ema} variance.probes={self.probes or None} "
            f"stability_floor={self.stability_floor} "
            f"gate={settings.gate} min_cosine={settings.min_cosine} passes={settings.passes} "
            f"combine_signals={settings.combine_signals} zero_advantage={settings.zero_advantage} "
            f"share_recomputation={settings.share_recomputation}"
        )


def resolve(update_rule: str | None, settings: PCRSettings) -> UpdateRule | None:
    """Fill the preset in and check the combination.

    Args:
        update_rule: the value of `update_rule`; `None` is the host's own update.
        settings: the `pcr` block.

    Returns:
        The resolved rule, or `None` for the host's own update.

    Raises:
        ValueError: an unknown rule, or a combination that cannot be meant.
    """
    if update_rule is None:
        return None
    _check_name(update_rule)
    _check_alpha(update_rule, settings)
    if settings.zero_advantage == "group":
        _check_grouping(settings)
    probed = settings.variance.estimator == "sequence"
    if settings.variance.probes is not None and not probed:
        reject("pcr.variance.probes", settings.variance.probes, "only the estimator 'sequence'")
    if not settings.gate and not update_rule.startswith(TORCHJD_PREFIX):
        logger.warning(
            "pcr.gate=false applies Eq. 15 without a conflict too: where the two gradients agree "
            "the KL loss then has a negative weight."
        )
    preset = PRESETS[settings.preset]
    floor = settings.stability_floor
    scale, ema = settings.variance.scale, settings.variance.ema
    return UpdateRule(
        name=update_rule,
        settings=settings,
        scale=preset.scale if scale is None else scale,
        ema=preset.ema if ema is None else float(ema),
        stability_floor=preset.stability_floor if floor is None else floor,
        probes=(settings.variance.probes or DEFAULT_PROBES) if probed else 0,
    )


def _check_name(update_rule: str) -> None:
    # Whether TorchJD has the weighting is for those to say who may import it.
    if isinstance(update_rule, str) and update_rule.startswith(TORCHJD_PREFIX):
        if not update_rule.removeprefix(TORCHJD_PREFIX).isidentifier():
            reject("update_rule", update_rule, "torchjd:<Weighting>, for example torchjd:UPGrad")
    elif update_rule not in RULES:
        names = ("null", *RULES, TORCHJD_PREFIX + "<Weighting>")
        reject("update_rule", update_rule, "one of " + ", ".join(names))


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
