"""Where one forward pass is taken for both gradients, and where not."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from pcr_plugin.config import PCRSettings, UpdateRule, VarianceSettings, resolve
from pcr_plugin.verl import host
from pcr_plugin.verl.sharing import reason_against

FSDP2 = SimpleNamespace(strategy="pcr:fsdp2")


class Layers(nn.Module):
    """A module with one linear layer under a name, and a configuration."""

    def __init__(self, name: str, layerdrop: float = 0.0) -> None:
        super().__init__()
        self.config = SimpleNamespace(layerdrop=layerdrop)
        *parents, last = name.split(".")
        owner: nn.Module = self
        for parent in parents:
            owner.add_module(parent, nn.Module())
            owner = owner.get_submodule(parent)
        owner.add_module(last, nn.Linear(2, 2))


DENSE = Layers("layers.0.mlp.up_proj")
REASONS: dict[str, tuple[Any, Any, nn.Module, str]] = {
    "FSDP1": (SimpleNamespace(strategy="pcr:fsdp"), {}, DENSE, "strategy=fsdp,"),
    "Megatron": (SimpleNamespace(strategy="megatron"), {}, DENSE, "strategy=megatron,"),
    "Liger": (FSDP2, {"use_liger": True}, DENSE, "model.use_liger=True"),
    "offload": (FSDP2, {"enable_activation_offload": True}, DENSE, "enable_activation_offload"),
    "experts": (FSDP2, {}, Layers("layers.0.mlp.experts.3.up_proj"), "experts.3.up_proj.weight"),
    "layerdrop": (FSDP2, {}, Layers("layers.0.mlp.up_proj", layerdrop=0.1), "layerdrop"),
}


def rule(passes: str) -> UpdateRule:
    resolved = resolve("pcr", PCRSettings(passes=passes))
    assert resolved is not None
    return resolved


@pytest.mark.parametrize("name", REASONS)
def test_reasons(name: str) -> None:
    """`auto` goes on without, `shared_forward` is refused with the reason and the remedy."""
    engine, model, module, words = REASONS[name]
    assert words in reason_against(engine, model, module, rule("auto"))
    with pytest.raises(ValueError) as caught:
        reason_against(engine, model, module, rule("shared_forward"))
    message = str(caught.value)
    assert message.startswith("pcr.passes='shared_forward' is not possible: ")
    assert words in message and "use pcr.passes=auto or two_forward" in message
    assert reason_against(engine, model, module, rule("two_forward")) == "as set"


@pytest.mark.parametrize("passes", ["auto", "shared_forward"])
@pytest.mark.parametrize("name", ["layers.0.mlp.up_proj", "layers.0.mlp.experts.up_proj"])
def test_without_a_reason_it_is_taken(name: str, passes: str) -> None:
    assert reason_against(FSDP2, {}, Layers(name), rule(passes)) == ""


def test_a_device_on_which_it_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = host.name
    monkeypatch.setattr(
        host, "name", lambda m, a: (lambda: "npu") if a == "get_device_name" else stock(m, a)
    )
    assert "'npu'" in reason_against(FSDP2, {}, DENSE, rule("auto"))


def test_reductions_that_are_to_wait_are_no_reason() -> None:
    """A second forward pass costs more than they save, see docs/scaling.md."""
    deferred = SimpleNamespace(strategy="pcr:fsdp2", use_no_sync_for_gradient_accumulation=True)
    assert reason_against(deferred, {}, DENSE, rule("auto")) == ""


def combined() -> UpdateRule:
    halves = VarianceSettings(estimator="split_half")
    resolved = resolve("pcr", PCRSettings(combine_signals=True, variance=halves))
    assert resolved is not None
    return resolved


@pytest.mark.parametrize("name", REASONS)
def test_signals_that_cannot_be_combined_are_refused(name: str) -> None:
    """Two forward passes would leave the key without effect."""
    engine, model, module, words = REASONS[name]
    with pytest.raises(ValueError) as caught:
        reason_against(engine, model, module, combined())
    message = str(caught.value)
    assert message.startswith("pcr.combine_signals=True is not possible: ")
    assert words in message and "use pcr.combine_signals=false" in message
