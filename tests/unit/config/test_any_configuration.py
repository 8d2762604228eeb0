"""Whatever a file holds: it is accepted as it is written, or a ValueError names the key."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcr_plugin.config.rule import RULES, resolve
from pcr_plugin.config.settings import (
    BLOCKS,
    ESTIMATORS,
    NAMED_SCOPES,
    PASSES,
    SCALES,
    ZERO_ADVANTAGE,
    PCRSettings,
    settings_from_mapping,
)

# What YAML can hold.
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=6,
)
patterns = st.text(alphabet=r"ab.*+?(){}[]|\^$09,-", max_size=12)
# Values that are likely to be right, so that what is accepted is tried, too.
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "preset": st.sampled_from(("paper", "robust")),
    "scope": st.sampled_from(NAMED_SCOPES) | st.lists(patterns, max_size=3),
    "block": st.sampled_from(BLOCKS),
    "alpha": st.none() | st.floats(-0.5, 1.5),
    "stability_floor": st.none() | st.booleans(),
    "gate": st.booleans(),
    "min_cosine": st.floats(-0.5, 1.5),
    "passes": st.sampled_from(PASSES),
    "combine_signals": st.booleans(),
    "zero_advantage": st.sampled_from(ZERO_ADVANTAGE),
    "share_recomputation": st.booleans(),
    "log_blocks": st.booleans(),
    "observe_every": st.integers(-1, 5),
}
LIKELY_VARIANCE: dict[str, st.SearchStrategy[Any]] = {
    "estimator": st.sampled_from(ESTIMATORS),
    "scale": st.none() | st.sampled_from(SCALES),
    "ema": st.none() | st.floats(-0.5, 1.5),
    "probes": st.none() | st.integers(-1, 5),
}
variance = st.fixed_dictionaries({}, optional=LIKELY_VARIANCE)
likely = st.fixed_dictionaries({}, optional=LIKELY | {"variance": variance})


def problem_of(call: Any, *words: Any) -> str:
    """The message of the ValueError, or nothing."""
    try:
        call(*words)
    except ValueError as error:
        return str(error)
    return ""


@given(values=anything)
@settings(derandomize=True, max_examples=300)
def test_nothing_but_a_value_error(values: Any) -> None:
    message = problem_of(settings_from_mapping, values)
    assert not message or (message.startswith("pcr") and " is not possible: " in message)


@given(
    key=st.sampled_from([*LIKELY, "variance"]),
    value=anything,
)
@settings(derandomize=True, max_examples=500)
def test_a_bad_value_is_named_with_its_key(key: str, value: Any) -> None:
    message = problem_of(settings_from_mapping, {key: value})
    assert not message or message.startswith(f"pcr.{key}")
    assert not message or " is not possible: " in message


@given(key=st.sampled_from(list(LIKELY_VARIANCE)), value=anything)
@settings(derandomize=True, max_examples=300)
def test_a_bad_value_of_the_variance_is_named_with_its_whole_key(key: str, value: Any) -> None:
    message = problem_of(settings_from_mapping, {"variance": {key: value}})
    assert not message or message.startswith(f"pcr.variance.{key}={value!r} is not possible: ")


@given(key=st.text(max_size=8), below=st.booleans())
@settings(derandomize=True, max_examples=200)
def test_an_unknown_key_is_named(key: str, below: bool) -> None:
    known = LIKELY_VARIANCE if below else {*LIKELY, "variance"}
    if key in known:
        return
    message = problem_of(settings_from_mapping, {"variance": {key: 1}} if below else {key: 1})
    assert f"pcr.{'variance.' if below else ''}{key}" in message


@given(values=likely, rule=st.sampled_from(RULES))
@settings(derandomize=True, max_examples=500)
def test_what_is_accepted_is_what_was_written(values: dict[str, Any], rule: str) -> None:
    if problem_of(settings_from_mapping, values):
        return
    found = settings_from_mapping(values)
    for key, value in values.items():
        if key == "variance":
            assert all(getattr(found.variance, name) == each for name, each in value.items())
        else:
            own = tuple(value) if isinstance(value, list) else value
            assert getattr(found, key) == own
    if message := problem_of(resolve, rule, found):
        assert message.startswith(("pcr.", "update_rule"))
        return
    resolved = resolve(rule, found)
    assert resolved is not None
    assert resolved.name == rule
    assert resolved.settings == found
    assert (rule == "soft") == (found.alpha is not None)


@given(rule=anything)
@settings(derandomize=True, max_examples=200)
def test_any_name_of_a_rule(rule: Any) -> None:
    if rule is None or rule in RULES:
        return
    message = problem_of(resolve, rule, PCRSettings())
    assert message.startswith(f"update_rule={rule!r} is not possible: ")


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 5000 + ")" * 5000, "(a"])
def test_patterns_that_no_engine_takes(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^pcr\.scope="):
        settings_from_mapping({"scope": [pattern]})
