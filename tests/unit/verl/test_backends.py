"""Where our engines are registered, and where they cannot be."""

import logging
from typing import Any

import pytest

from pcr_plugin.verl import backends, host


@pytest.fixture
def without_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """veRL, where its import of Megatron-core has failed."""
    registry: Any = host.name("verl.workers.engine.base", "EngineRegistry")
    engines = {**registry._engines["language_model"], "megatron": {}}
    engines.pop("pcr:megatron", None)
    monkeypatch.setitem(registry._engines, "language_model", engines)


@pytest.mark.usefixtures("without_stock")
def test_a_driver_needs_no_megatron_core(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The workers train; where they lack it, too, veRL has no engine of the name."""
    monkeypatch.setattr(backends, "find_spec", lambda module: None)
    with caplog.at_level(logging.WARNING):
        assert backends.register("megatron") == "pcr:megatron"
    assert "no Megatron-core here" in caplog.text
    registry: Any = host.name("verl.workers.engine.base", "EngineRegistry")
    assert "pcr:megatron" not in registry._engines["language_model"]


@pytest.mark.usefixtures("without_stock")
def test_a_megatron_core_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda module: object())
    with pytest.raises(ValueError, match=r"actor\.strategy='megatron'.*its warnings, above"):
        backends.register("megatron")
