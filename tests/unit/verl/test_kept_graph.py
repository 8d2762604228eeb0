"""What would destroy a graph in its first backward pass does not."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from verl.utils.torch_functional import logprobs_from_logits
from verl.workers.engine.fsdp import transformer_impl

from pcr_plugin.verl.kept_graph import keep_compiled_graphs, nothing_in_place


def test_veRL_is_not_allowed_to_write_over_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it asks for; and afterwards it may again."""
    asked = []

    def watched(*positional: Any, **named: Any) -> Tensor:
        bound = inspect.signature(logprobs_from_logits).bind(*positional, **named)
        bound.apply_defaults()
        asked.append(bound.arguments["inplace_backward"])
        result: Tensor = logprobs_from_logits(*positional, **named)
        return result

    monkeypatch.setattr(transformer_impl, "logprobs_from_logits", watched)
    logits, labels = torch.randn(5, 7), torch.arange(5)
    expected = logprobs_from_logits(logits, labels)
    with nothing_in_place():
        for named in ({}, {"inplace_backward": True}):
            found = transformer_impl.logprobs_from_logits(logits=logits, labels=labels, **named)
            assert torch.equal(found, expected)
    assert asked == [False, False]
    transformer_impl.logprobs_from_logits(logits, labels)
    assert asked[-1] is True
    assert transformer_impl.logprobs_from_logits is watched


def test_veRL_is_given_back_after_an_error() -> None:
    stock = transformer_impl.logprobs_from_logits
    with pytest.raises(RuntimeError), nothing_in_place():
        raise RuntimeError
    assert transformer_impl.logprobs_from_logits is stock


def test_compiled_functions_run_backward_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As veRL's entropy is, with `use_torch_compile`."""
    from torch._functorch import config
    from verl.utils.torch_functional import entropy_from_logits

    monkeypatch.setattr(config, "donated_buffer", True)
    keep_compiled_graphs()
    torch._dynamo.reset()
    compiled = torch.compile(entropy_from_logits, dynamic=True, backend="aot_eager")
    logits = torch.randn(5, 7, requires_grad=True)
    value = compiled(logits).sum()
    value.backward(retain_graph=True)
    first = logits.grad
    assert first is not None
    logits.grad = None
    value.backward()
    assert torch.equal(logits.grad, first)
