"""From settings to the rule that runs: presets, combinations, and what is not built."""

import dataclasses
import logging
from typing import Any

import pytest

from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings, resolve
from pcr_plugin.config.presets import PRESETS
from pcr_plugin.config.settings import DEFAULT_PROBES

RULES = ("pcr", "pcgrad", "soft", "sum", "observe")
HALVES = VarianceSettings(estimator="split_half")


def rule(name: str = "pcr", **settings: Any) -> UpdateRule:
    resolved = resolve(name, PCRSettings(**settings))
    assert resolved is not None
    return resolved


@pytest.mark.parametrize(
    ("preset", "scale", "ema", "floor"),
    [("paper", "absolute", 0.0, False), ("robust", "relative", 0.9, True)],
)
def test_a_preset_fills_every_key_it_controls(
    preset: str, scale: str, ema: float, floor: bool
) -> None:
    resolved = rule(preset=preset)
    assert (resolved.scale, resolved.ema, resolved.stability_floor) == (scale, ema, floor)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scale", ["absolute", "relative", "beta"])
@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("floor", [False, True])
def test_what_the_user_sets_wins_over_the_preset(
    preset: str, scale: str, ema: float, floor: bool
) -> None:
    """Also 0 and false, which are values and not "unset"."""
    variance = VarianceSettings(scale=scale, ema=ema)
    resolved = rule(preset=preset, variance=variance, stability_floor=floor)
    assert (resolved.scale, resolved.ema, resolved.stability_floor) == (scale, ema, floor)


def test_every_key_of_a_preset_is_an_open_key_of_the_settings() -> None:
    names = {field.name for field in dataclasses.fields(next(iter(PRESETS.values())))}
    open_keys = {f.name for f in dataclasses.fields(VarianceSettings) if f.default is None}
    open_keys |= {f.name for f in dataclasses.fields(PCRSettings) if f.default is None}
    assert names == open_keys - {"alpha", "probes"}


def test_no_rule_is_the_host_s_own_update() -> None:
    assert resolve(None, PCRSettings()) is None


@pytest.mark.parametrize(
    "bad", ["", "PCR", "pcr ", "null", "none", "None", "torchjd", True, 1, ["pcr"]]
)
def test_an_unknown_rule_is_named_with_all_rules(bad: Any) -> None:
    with pytest.raises(ValueError) as caught:
        resolve(bad, PCRSettings())
    message = str(caught.value)
    assert message.startswith(f"update_rule={bad!r} is not possible: ")
    for name in ("null", *RULES, "torchjd:<Weighting>"):
        assert name in message.split("is not possible")[1]


@pytest.mark.parametrize("name", RULES)
def test_known_rules(name: str) -> None:
    resolved = rule(name, alpha=0.5) if name == "soft" else rule(name)
    assert resolved.name == name
    assert resolved.needs_variance is (name == "pcr")
    assert resolved.observes is (name == "observe")


def test_soft_needs_an_alpha() -> None:
    with pytest.raises(ValueError, match=r"pcr\.alpha=None .*update_rule=soft needs a number"):
        rule("soft")
    for alpha in (0, 0.0, 0.3, 1.0):
        assert rule("soft", alpha=alpha).settings.alpha == alpha


@pytest.mark.parametrize("name", [name for name in RULES if name != "soft"])
@pytest.mark.parametrize("alpha", [0, 0.0, 0.5])
def test_alpha_without_soft(name: str, alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"pcr\.alpha={alpha!r} .*only update_rule=soft"):
        rule(name, alpha=alpha)


def test_probes_belong_to_one_estimator() -> None:
    assert rule("pcr").probes == 0
    assert rule("pcr", variance=VarianceSettings(estimator="sequence")).probes == DEFAULT_PROBES
    assert rule("pcr", variance=VarianceSettings(estimator="sequence", probes=3)).probes == 3


def test_probes_without_their_estimator_are_refused_by_name() -> None:
    with pytest.raises(ValueError) as caught:
        rule(variance=VarianceSettings(probes=4))
    assert str(caught.value).startswith("pcr.variance.probes=4 is not possible: ")
    assert "sequence" in str(caught.value)


@pytest.mark.parametrize("name", ["UPGrad", "MGDAWeighting", "not_known_here"])
def test_a_weighting_of_torchjd_is_named_after_the_colon(name: str) -> None:
    resolved = rule(f"torchjd:{name}", preset="robust")
    assert resolved.name == f"torchjd:{name}"
    assert resolved.weighting == name
    assert not resolved.needs_variance
    assert not resolved.observes
    assert f"update_rule=torchjd:{name} " in resolved.describe()


@pytest.mark.parametrize("name", RULES)
def test_our_own_rules_have_no_weighting(name: str) -> None:
    assert rule(name, alpha=0.5 if name == "soft" else None).weighting is None


@pytest.mark.parametrize("bad", ["torchjd:", "torchjd: UPGrad", "torchjd:UP Grad", "torchjd:a.b"])
def test_a_weighting_needs_a_name(bad: str) -> None:
    with pytest.raises(ValueError, match=rf"update_rule='{bad}' is not .*torchjd:<Weighting>"):
        rule(bad)


PROJECTING = ("pcr", "pcgrad", "soft")


def named(name: str, **settings: Any) -> UpdateRule:
    return rule(name, alpha=0.5 if name == "soft" else None, **settings)


@pytest.mark.parametrize("name", [*RULES, "torchjd:UPGrad"])
def test_an_open_gate_is_warned_about_where_it_weakens_the_kl(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="pcr_plugin"):
        named(name, gate=True)
        assert not caplog.records
        named(name, gate=False)
    warned = "pcr.gate=false" in caplog.text and "KL" in caplog.text
    assert warned is (name in PROJECTING)


@pytest.mark.parametrize("name", PROJECTING)
@pytest.mark.parametrize("settings", [{"preset": "robust"}, {"stability_floor": True}])
def test_an_open_gate_with_a_floor_changes_nothing_and_is_refused(
    name: str, settings: dict[str, Any]
) -> None:
    """max(beta, -alpha c) is beta where c is positive."""
    with pytest.raises(ValueError, match=r"pcr\.gate=False .*nothing changes.*floor=false"):
        named(name, gate=False, **settings)
    assert not named(name, gate=False, preset="robust", stability_floor=False).settings.gate


@pytest.mark.parametrize("name", [*RULES, "torchjd:UPGrad"])
def test_a_cosine_without_a_gate_is_read_by_nothing_and_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"pcr\.min_cosine=0\.2 .*pcr\.gate=false reads no cosine"):
        named(name, gate=False, min_cosine=0.2)


def test_a_floor_below_weights_that_it_does_not_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pcr\.stability_floor=True .*update_rule=torchjd:UPGrad"):
        rule("torchjd:UPGrad", stability_floor=True)
    for settings in ({"preset": "robust"}, {"stability_floor": False}):
        found = rule("torchjd:UPGrad", **settings)
        assert not found.stability_floor
        assert "stability_floor=False" in found.describe()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "pcr.variance.estimator=sequence or split_half"),
        ({"variance": HALVES, "passes": "two_forward"}, "pcr.passes=two_forward"),
    ],
)
def test_combined_signals_where_there_are_none_are_refused(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError) as caught:
        rule(combine_signals=True, **settings)
    message = str(caught.value)
    assert message.startswith("pcr.combine_signals=True is not possible: ")
    assert reason in message
    assert rule(combine_signals=True, variance=HALVES).settings.combine_signals


def test_the_description_names_every_resolved_value() -> None:
    line = rule("soft", alpha=0.25, preset="robust", block="tensor", min_cosine=0.1).describe()
    assert "\n" not in line
    for part in (
        "update_rule=soft",
        "preset=robust",
        "scope=mlp",
        "block=tensor",
        "alpha=0.25",
        "variance.estimator=micro_batch",
        "variance.scale=relative",
        "variance.ema=0.9",
        "stability_floor=True",
        "gate=True",
        "min_cosine=0.1",
        "passes=auto",
    ):
        assert part in line.split(), part


def test_a_rule_is_frozen_and_keyword_only() -> None:
    resolved = rule()
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolved.name = "sum"
    with pytest.raises(TypeError, match="positional"):
        UpdateRule("pcr")
