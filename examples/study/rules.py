"""The update rules that are compared, by name, as keys of veRL's configuration."""

from collections.abc import Mapping

_ACTOR = "actor_rollout_ref.actor."


def _rule(name: str, **keys: object) -> Mapping[str, object]:
    named = {f"{_ACTOR}pcr.{key.replace('__', '.')}": value for key, value in keys.items()}
    return {_ACTOR + "update_rule": name} | named


def _soft(alpha: float, floor: bool) -> Mapping[str, object]:
    return _rule("soft", alpha=alpha, stability_floor=floor)


def _pcr(scale: str, floor: bool, ema: float) -> Mapping[str, object]:
    return _rule("pcr", variance__scale=scale, variance__ema=ema, stability_floor=floor)


RULES: dict[str, Mapping[str, object]] = {
    "stock": _rule("null"),
    "pcgrad": _rule("pcgrad", stability_floor=False),
    "pcgrad_floor": _rule("pcgrad", stability_floor=True),
    "soft0.2_floor": _soft(0.2, floor=True),
    "soft0.5": _soft(0.5, floor=False),
    "soft0.5_floor": _soft(0.5, floor=True),
    "soft0.8_floor": _soft(0.8, floor=True),
    # Named by their presets. The values of `robust` are what the study is to find.
    "paper": _rule("pcr", preset="paper"),
    "robust": _rule("pcr", preset="robust"),
    "pcr_absolute_floor_ema": _pcr("absolute", floor=True, ema=0.9),
    "pcr_relative_ema": _pcr("relative", floor=False, ema=0.9),
    "pcr_relative_floor": _pcr("relative", floor=True, ema=0.0),
    "pcr_relative_floor_ema": _pcr("relative", floor=True, ema=0.9),
    "pcr_beta": _pcr("beta", floor=False, ema=0.0),
    "pcr_beta_floor_ema": _pcr("beta", floor=True, ema=0.9),
    "observe": _rule("observe", observe_every=1),
}
