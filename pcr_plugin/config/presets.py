"""The values that `pcr.preset` fills in for keys the user left open."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Values of the preset-controlled keys.

    Args:
        scale: `pcr.variance.scale`.
        ema: `pcr.variance.ema`.
        stability_floor: `pcr.stability_floor`.
    """

    scale: str
    ema: float
    stability_floor: bool


PRESETS: dict[str, Preset] = {
    "paper": Preset(scale="absolute", ema=0.0, stability_floor=False),
    # The literal rule removes beta s from MLPs in conflict, and absolute variances drive alpha to
    # 0 as the policy drifts; with the floor and V of beta s the update is never weaker than GRPO.
    "robust": Preset(scale="beta", ema=0.9, stability_floor=True),
}
