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
    # Why, and how little is known: docs/evidence.md. The floor: the literal rule removes beta s
    # from MLPs in conflict, so that beta loses its meaning. Relative variances: absolute ones
    # depend on how either loss is scaled, and V of beta s is so small at a usual beta that alpha
    # is 1, as without variances. The average: one step does not resolve a ratio of noise to signal.
    "robust": Preset(scale="relative", ema=0.9, stability_floor=True),
}
