"""From settings to the resolved rule that the update executes."""

from dataclasses import dataclass

from pcr_plugin.config.checks import reject
from pcr_plugin.config.combinations import check_combination
from pcr_plugin.config.presets import PRESETS
from pcr_plugin.config.settings import DEFAULT_PROBES, PCRSettings

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
        stability_floor: resolved `pcr.stability_floor`; never with a weighting of TorchJD.
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
    floor = _floor_of(update_rule, settings)
    check_combination(update_rule, settings, floor=floor)
    preset = PRESETS[settings.preset]
    probed = settings.variance.estimator == "sequence"
    scale, ema = settings.variance.scale, settings.variance.ema
    return UpdateRule(
        name=update_rule,
        settings=settings,
        scale=preset.scale if scale is None else scale,
        ema=preset.ema if ema is None else float(ema),
        stability_floor=floor,
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


def _floor_of(update_rule: str, settings: PCRSettings) -> bool:
    given = settings.stability_floor
    if update_rule.startswith(TORCHJD_PREFIX):
        if given:
            reject(
                "pcr.stability_floor",
                True,
                f"update_rule={update_rule} has the weights of TorchJD, and no floor below them; "
                "leave null",
            )
        return False
    return PRESETS[settings.preset].stability_floor if given is None else given
