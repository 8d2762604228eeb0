"""The update rules that are compared, by name, as keys of veRL's configuration."""

from collections.abc import Mapping

_ACTOR = "actor_rollout_ref.actor."


def _rule(name: str, **keys: object) -> Mapping[str, object]:
    named = {f"{_ACTOR}pcr.{key.replace('__', '.')}": value for key, value in keys.items()}
    return {_ACTOR + "update_rule": name} | named


def _pcr(scale: str, floor: bool, ema: float) -> Mapping[str, object]:
    return _rule("pcr", variance__scale=scale, variance__ema=ema, stability_floor=floor)


_SCALES = ("absolute", "relative", "beta")
# Named by its preset. The values of `robust` are what the study is to find: it has all candidates.
_PAPER = ("absolute", False, 0.0)
VARIANTS = {
    f"pcr_{scale}{'_floor' if floor else ''}{'_ema' if ema else ''}": _pcr(scale, floor, ema)
    for scale in _SCALES
    for floor in (False, True)
    for ema in (0.0, 0.9)
    if (scale, floor, ema) != _PAPER
}
FIXED = {
    f"soft{alpha}{'_floor' if floor else ''}": _rule("soft", alpha=alpha, stability_floor=floor)
    for alpha in (0.2, 0.5, 0.8)
    for floor in (False, True)
}
RULES: dict[str, Mapping[str, object]] = {
    "stock": _rule("null"),
    "pcgrad": _rule("pcgrad", stability_floor=False),
    "pcgrad_floor": _rule("pcgrad", stability_floor=True),
    **FIXED,
    "paper": _rule("pcr", preset="paper"),
    "robust": _rule("pcr", preset="robust"),
    **VARIANTS,
    "observe": _rule("observe", observe_every=1),
}
