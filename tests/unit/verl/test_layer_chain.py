"""When the layers of a model are a chain; models whose forward pass is cut up on purpose."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from pcr_plugin.verl.layer_chain import LayerChain

TOKENS = torch.tensor([[1, 2, 3, 4, 5]])
CONFIG = {
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    found = Qwen2ForCausalLM(Qwen2Config(**CONFIG)).train()
    found.gradient_checkpointing_enable({"use_reentrant": False})
    return found


def watched(model: Any) -> str:
    return LayerChain(model, []).watch(lambda: model(TOKENS, use_cache=False))


def called(layer: nn.Module, call: Callable[..., Any]) -> None:
    """Let the model call a layer in another way."""
    kind: Any = type(layer)

    def changed(self: Any, *positional: Any, **named: Any) -> Any:
        return call(lambda *p, **n: kind.__call__(self, *p, **n), *positional, **named)

    layer.__class__ = type(kind.__name__, (kind,), {"__call__": changed})


def twice(run: Any, hidden: Tensor, **named: Any) -> Any:
    return run(run(hidden, **named), **named)


def with_copy(run: Any, hidden: Tensor, **named: Any) -> Any:
    return run(hidden.clone(), **named)


def with_addition(run: Any, hidden: Tensor, **named: Any) -> Any:
    return run(hidden.add_(1.0), **named)


def with_second(run: Any, hidden: Tensor, **named: Any) -> Any:
    return run(hidden, extra=[hidden], **named)


def with_object(run: Any, hidden: Tensor, **named: Any) -> Any:
    return run(hidden, extra=SimpleNamespace(hidden=hidden), **named)


def with_constant(run: Any, hidden: Tensor, **named: Any) -> Any:
    return run(hidden.detach(), **named)


def by_name(run: Any, hidden: Tensor, **named: Any) -> Any:
    return run(hidden_states=hidden, **named)


def test_a_decoder_is_a_chain_and_is_left_as_it_was(model: Any) -> None:
    before = [layer._gradient_checkpointing_func for layer in model.model.layers]
    chain = LayerChain(model, [])
    assert chain.names == ["model.layers.0", "model.layers.1", "model.layers.2"]
    assert watched(model) == ""
    after = [layer._gradient_checkpointing_func for layer in model.model.layers]
    assert all(mine is theirs for mine, theirs in zip(before, after, strict=True))


def test_without_checkpointing_there_are_no_layers(model: Any) -> None:
    model.gradient_checkpointing_disable()
    assert LayerChain(model, []).names == []


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (twice, "model.layers.1 does not run once"),
        (with_copy, "model.layers.1 does not get the output of the layer before"),
        (with_addition, "model.layers.1 does not get the output of the layer before"),
        (with_second, "model.layers.1 gets a second tensor with a gradient"),
        (with_object, "model.layers.1 gets a SimpleNamespace, which could hide one"),
        (with_constant, "model.layers.1 has no input with a gradient"),
        (by_name, "model.layers.1 has no input with a gradient"),
    ],
)
def test_what_is_no_chain(call: Callable[..., Any], reason: str, model: Any) -> None:
    called(model.model.layers[1], call)
    assert watched(model).startswith(reason)


def test_a_layer_that_does_not_run(model: Any) -> None:
    called(model.model.layers[2], lambda run, hidden, **named: hidden)
    assert watched(model) == "2 calls of 3 layers"


def test_a_layer_with_two_outputs(model: Any) -> None:
    layer = model.model.layers[2]
    stock = layer.forward
    layer.forward = lambda *positional, **named: (stock(*positional, **named), None)
    called(layer, lambda run, hidden, **named: run(hidden, **named)[0])
    assert watched(model) == "model.layers.2 returns a tuple, not one tensor"


def test_an_error_leaves_the_model_as_it_was(model: Any) -> None:
    before = [layer._gradient_checkpointing_func for layer in model.model.layers]

    def fail() -> None:
        raise RuntimeError("meant to fail")

    with pytest.raises(RuntimeError, match="meant to fail"):
        LayerChain(model, []).watch(fail)
    assert [layer._gradient_checkpointing_func for layer in model.model.layers] == before


def test_layers_that_are_not_sharded_by_themselves(model: Any) -> None:
    """Their gradients would be reduced at the end, both signals' at once."""
    assert "model.layers.0 is not sharded by itself" in LayerChain(model, []).reason_against()
