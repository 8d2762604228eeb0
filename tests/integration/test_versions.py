"""What is said of a veRL that has not been tried, and of another series."""

import logging
from importlib.metadata import PackageNotFoundError

import pytest

from pcr_plugin.cli import doctor
from pcr_plugin.verl import host
from pcr_plugin.verl.in_driver import refusal
from tests.integration.recipes import actor_of, composed
from tests.integration.refused_settings import RULE
from tests.integration.test_refusals import innermost


def pretend(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    """The metadata of another release beside the code of this one."""

    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(host, "version", version)


def notices(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "has not been tried" in r.getMessage()]


def test_the_installed_release_has_been_tried(caplog: pytest.LogCaptureFixture) -> None:
    """A release that comes is tried first, then added to the list and to the page."""
    assert host.verl_version() in host.TRIED
    actor_of([RULE])
    assert not notices(caplog)


@pytest.mark.parametrize("installed", ["0.9.2", "0.9.17.dev1", None])
def test_an_untried_release_of_the_series_is_named_and_used(
    installed: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, installed)
    actor_of([])
    assert not notices(caplog), "a stock run is not ours to comment on"
    assert actor_of([RULE]).engine.strategy == "pcr:fsdp2"
    [notice] = notices(caplog)
    for words in (installed or "unknown", ", ".join(host.TRIED), "pcr doctor", "update_rule=sum"):
        assert words in notice
    assert [r.levelno for r in caplog.records if notice in r.getMessage()] == [logging.WARNING]
    finding = doctor._plugin_in_verl()
    assert finding.good
    assert finding.remedy == host.not_tried()


def test_an_untried_megatron_core_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host.check_megatron_core()
    assert not notices(caplog), "the installed one has been tried"
    pretend(monkeypatch, "0.17.0")
    host.check_megatron_core()
    [notice] = notices(caplog)
    for words in ("Megatron-core 0.17.0", *host.TRIED_MEGATRON_CORE, "update_rule=sum"):
        assert words in notice


@pytest.mark.parametrize("installed", ["0.8.0", "0.10.0", "0.10.0.dev0", "1.0"])
def test_another_series_is_refused_with_a_rule(
    installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, installed)
    assert actor_of([]).engine.strategy == "fsdp2"
    with pytest.raises(Exception, match="is refused") as caught:
        actor_of([RULE])
    error = innermost(caught.value)
    assert isinstance(error, ImportError)
    for words in (f"veRL {host.SERIES}.x", installed, 'pip install "verl>=0.9,<0.10"'):
        assert words in str(error)
    assert refusal(composed([RULE])) == str(error)
    finding = doctor._plugin_in_verl()
    assert not finding.good
    assert finding.text == str(error)
