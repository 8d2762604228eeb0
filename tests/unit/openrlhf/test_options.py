"""The keys as OpenRLHF's command line spells them."""

import argparse
from types import SimpleNamespace
from typing import Any

import pytest

from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings, resolve
from pcr_plugin.openrlhf.options import add_options, rule_of


def parsed(*arguments: str) -> Any:
    """What OpenRLHF's `hierarchize` leaves of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--actor.optim", default="adam")
    add_options(parser)
    root = SimpleNamespace()
    for key, value in vars(parser.parse_args(arguments)).items():
        *parents, name = key.split(".")
        node = root
        for parent in parents:
            node.__dict__.setdefault(parent, SimpleNamespace())
            node = getattr(node, parent)
        setattr(node, name, value)
    return root


def rule(*arguments: str) -> UpdateRule | None:
    """The rule of a command line."""
    return rule_of(parsed(*arguments))


def test_without_the_flag_nothing_is_added() -> None:
    args = parsed()
    assert rule_of(args) is None
    assert vars(args.actor) == {"optim": "adam"}


def test_the_flag_alone_is_the_default_rule() -> None:
    assert rule("--actor.update_rule", "pcr") == resolve("pcr", PCRSettings())


def test_null_is_openrlhfs_own_update() -> None:
    assert rule("--actor.update_rule", "null") is None


def test_values_are_what_yaml_would_make_of_them() -> None:
    found = rule(
        *("--actor.update_rule", "soft", "--actor.pcr.alpha", "0.25"),
        *("--actor.pcr.gate", "false", "--actor.pcr.preset", "robust"),
        *("--actor.pcr.variance.ema", "0.5", "--actor.pcr.stability_floor", "false"),
        *("--actor.pcr.variance.estimator", "split_half", "--actor.pcr.observe_every", "3"),
        *("--actor.pcr.variance.scale", "null", "--actor.pcr.variance.probes", "null"),
    )
    variance = VarianceSettings(estimator="split_half", ema=0.5)
    settings = PCRSettings(
        alpha=0.25,
        gate=False,
        preset="robust",
        stability_floor=False,
        variance=variance,
        observe_every=3,
    )
    assert found == resolve("soft", settings)


@pytest.mark.parametrize(
    ("given", "scope"),
    [(["all"], "all"), ([r"layers\.0\."], (r"layers\.0\.",)), (["a", "b"], ("a", "b"))],
)
def test_scopes_are_names_or_expressions(given: list[str], scope: Any) -> None:
    found = rule("--actor.update_rule", "pcr", "--actor.pcr.scope", *given)
    assert found is not None
    assert found.settings.scope == scope


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--actor.update_rule", "prc"], r"update_rule='prc'.*pcr, pcgrad, soft, sum"),
        (["--actor.update_rule", "soft"], r"pcr.alpha=None.*soft"),
        (["--actor.update_rule", "pcr", "--actor.pcr.alpha", "0.3"], r"pcr.alpha=0.3"),
        (["--actor.update_rule", "pcr", "--actor.pcr.gate", "maybe"], r"pcr.gate='maybe'.*true"),
        (["--actor.update_rule", "pcr", "--actor.pcr.preset", "bold"], r"'bold'.*paper, robust"),
        (["--actor.pcr.block", "row"], r"pcr.block='row'.*module, tensor, global"),
    ],
)
def test_bad_values_are_named_with_what_is_allowed(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule(*arguments)


def test_keys_without_a_rule_warn(caplog: pytest.LogCaptureFixture) -> None:
    assert rule("--actor.pcr.preset", "robust") is None
    assert "do nothing" in caplog.text


def test_an_unknown_key_is_argparses_own_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--actor.pcr.variances", "1")
    assert "--actor.pcr.variances" in capsys.readouterr().err
