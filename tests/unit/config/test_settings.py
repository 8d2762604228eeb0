"""Every key of the `pcr` block: what it takes, and what the message says when it does not."""

import dataclasses
from typing import Any

import pytest

from pcr_plugin.config import PCRSettings, VarianceSettings, settings_from_mapping

# key as typed -> nested mapping that sets it
KEYS = {
    "pcr.preset": lambda value: {"preset": value},
    "pcr.scope": lambda value: {"scope": value},
    "pcr.block": lambda value: {"block": value},
    "pcr.alpha": lambda value: {"alpha": value},
    "pcr.variance.estimator": lambda value: {"variance": {"estimator": value}},
    "pcr.variance.scale": lambda value: {"variance": {"scale": value}},
    "pcr.variance.ema": lambda value: {"variance": {"ema": value}},
    "pcr.variance.probes": lambda value: {"variance": {"probes": value}},
    "pcr.stability_floor": lambda value: {"stability_floor": value},
    "pcr.gate": lambda value: {"gate": value},
    "pcr.min_cosine": lambda value: {"min_cosine": value},
    "pcr.passes": lambda value: {"passes": value},
    "pcr.combine_signals": lambda value: {"combine_signals": value},
    "pcr.zero_advantage": lambda value: {"zero_advantage": value},
    "pcr.share_recomputation": lambda value: {"share_recomputation": value},
    "pcr.log_blocks": lambda value: {"log_blocks": value},
    "pcr.observe_every": lambda value: {"observe_every": value},
}

CHOICES = {
    "pcr.preset": ("paper", "robust"),
    "pcr.block": ("module", "tensor", "global"),
    "pcr.variance.estimator": ("micro_batch", "split_half", "sequence"),
    "pcr.variance.scale": ("absolute", "relative", "beta"),
    "pcr.passes": ("auto", "two_forward", "shared_forward"),
    "pcr.zero_advantage": ("skip", "group", "run"),
}
FLAGS = (
    "pcr.stability_floor",
    "pcr.gate",
    "pcr.combine_signals",
    "pcr.share_recomputation",
    "pcr.log_blocks",
)
INTERVALS = {"pcr.alpha": True, "pcr.min_cosine": True, "pcr.variance.ema": False}
COUNTS = ("pcr.variance.probes", "pcr.observe_every")
OPTIONAL = ("pcr.alpha", "pcr.variance.scale", "pcr.variance.ema", "pcr.variance.probes")


def read(key: str, value: Any) -> Any:
    """The value that the settings have after setting `key`."""
    settings: Any = settings_from_mapping(KEYS[key](value))
    for name in key.removeprefix("pcr.").split("."):
        settings = getattr(settings, name)
    return settings


def assert_refused(key: str, value: Any, *allowed: str) -> None:
    with pytest.raises(ValueError) as caught:
        settings_from_mapping(KEYS[key](value))
    message = str(caught.value)
    assert message.startswith(f"{key}={value!r} is not possible: ")
    for part in allowed:
        assert part in message.split("is not possible: ")[1]


def test_every_field_has_a_case_here() -> None:
    fields = {f"pcr.{f.name}" for f in dataclasses.fields(PCRSettings)} - {"pcr.variance"}
    fields |= {f"pcr.variance.{f.name}" for f in dataclasses.fields(VarianceSettings)}
    assert set(KEYS) == fields


@pytest.mark.parametrize(("key", "choices"), CHOICES.items())
def test_choices(key: str, choices: tuple[str, ...]) -> None:
    for choice in choices:
        assert read(key, choice) == choice
    for bad in ("", choices[0].upper(), choices[0] + " ", 0, True, 1.5, [choices[0]]):
        assert_refused(key, bad, "one of", *choices)


@pytest.mark.parametrize("key", FLAGS)
def test_flags(key: str) -> None:
    assert read(key, True) is True
    assert read(key, False) is False
    for bad in ("true", "False", 0, 1, 1.0, []):
        assert_refused(key, bad, "true or false")


@pytest.mark.parametrize(("key", "with_one"), INTERVALS.items())
def test_intervals(key: str, with_one: bool) -> None:
    for good in (0, 0.0, 0.5, 1e-9):
        assert read(key, good) == good
    bad_numbers = [-1e-9, 1.0000001, float("nan"), float("inf"), -float("inf"), 2]
    if with_one:
        assert read(key, 1) == 1
    else:
        bad_numbers += [1, 1.0]
    bounds = "[0, 1]" if with_one else "[0, 1)"
    for bad in (*bad_numbers, "0.5", True, [0.5]):
        assert_refused(key, bad, "a number in", bounds)


@pytest.mark.parametrize("key", COUNTS)
def test_counts(key: str) -> None:
    for good in (1, 17):
        assert read(key, good) == good
    for bad in (0, -3, 1.0, "4", True):
        assert_refused(key, bad, "an integer of at least 1")


@pytest.mark.parametrize("key", [*OPTIONAL, "pcr.stability_floor"])
def test_open_keys_may_stay_open(key: str) -> None:
    assert read(key, None) is None


@pytest.mark.parametrize("key", sorted(set(KEYS) - {*OPTIONAL, "pcr.stability_floor"}))
def test_the_other_keys_may_not(key: str) -> None:
    assert_refused(key, None)


@pytest.mark.parametrize("scope", ["mlp", "attention", "all"])
def test_named_scopes(scope: str) -> None:
    assert read("pcr.scope", scope) == scope


def test_a_list_of_patterns_becomes_a_tuple() -> None:
    assert read("pcr.scope", [r"\.mlp\.", "lm_head"]) == (r"\.mlp\.", "lm_head")


@pytest.mark.parametrize("bad", ["mlps", "", ".*", None, 3, {"mlp": True}])
def test_bad_scopes(bad: Any) -> None:
    assert_refused("pcr.scope", bad, "mlp, attention, all", "list of regular expressions")


@pytest.mark.parametrize("bad", [[], ["ok", 3], [None]])
def test_bad_lists_of_patterns(bad: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"pcr\.scope=.*is not possible: .*list of regular"):
        settings_from_mapping({"scope": bad})


def test_a_pattern_that_is_no_regular_expression_is_named() -> None:
    with pytest.raises(ValueError, match=r"pcr\.scope='\(unclosed'.*a regular expression"):
        settings_from_mapping({"scope": ["fine", "(unclosed"]})


@pytest.mark.parametrize(
    ("values", "key", "listed"),
    [
        ({"floor": True}, "pcr.floor=True", "stability_floor"),
        ({"variance": {"decay": 0.9}}, "pcr.variance.decay=0.9", "ema"),
        ({"estimator": "split_half"}, "pcr.estimator='split_half'", "variance"),
    ],
)
def test_an_unknown_key_is_named_with_the_known_ones(
    values: dict[str, Any], key: str, listed: str
) -> None:
    with pytest.raises(ValueError) as caught:
        settings_from_mapping(values)
    assert str(caught.value).startswith(key)
    assert listed in str(caught.value)


@pytest.mark.parametrize("bad", ["micro_batch", ["ema", 0.9], 0.9, False, 0, ""])
def test_a_variance_that_is_no_block_of_keys(bad: Any) -> None:
    with pytest.raises(ValueError) as caught:
        settings_from_mapping({"variance": bad})
    assert str(caught.value).startswith(f"pcr.variance={bad!r} is not possible: ")
    assert "estimator, scale, ema, probes" in str(caught.value)


@pytest.mark.parametrize("bad", ["robust", ["preset"], 3])
def test_a_pcr_that_is_no_block_of_keys(bad: Any) -> None:
    with pytest.raises(ValueError) as caught:
        settings_from_mapping(bad)
    assert str(caught.value).startswith(f"pcr={bad!r} is not possible: ")
    assert "preset" in str(caught.value)


def test_nothing_given_is_the_default() -> None:
    assert settings_from_mapping({}) == PCRSettings()
    assert settings_from_mapping({"variance": None}) == PCRSettings()
    assert settings_from_mapping({"variance": VarianceSettings(ema=0.5)}).variance.ema == 0.5


def test_what_is_given_is_not_changed() -> None:
    values = {"scope": ["a"], "variance": {"ema": 0.1}}
    settings_from_mapping(values)
    assert values == {"scope": ["a"], "variance": {"ema": 0.1}}


@pytest.mark.parametrize("kind", [PCRSettings, VarianceSettings])
def test_settings_are_frozen_and_keyword_only(kind: type) -> None:
    settings = kind()
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, field.name, getattr(settings, field.name))
    with pytest.raises(TypeError, match="positional"):
        kind("paper")
