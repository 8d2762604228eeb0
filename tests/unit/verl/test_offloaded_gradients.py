"""A gradient that FSDP2 copies to the CPU is read when it is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pcr_plugin.blocks import partition
from pcr_plugin.verl.fsdp2_shared import Fsdp2SharedGradients


@contextmanager
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A device with a queue; yields what becomes of it."""
    events: list[str] = []
    stream = SimpleNamespace(synchronize=lambda: events.append("waited"))
    with monkeypatch.context() as patch:
        patch.setattr(torch.accelerator, "is_available", lambda: True)
        patch.setattr(torch.accelerator, "current_stream", lambda: stream)
        yield events


def backward(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    gradients = Fsdp2SharedGradients(model, partition(names, ("mlp",)))
    gradients.count_arrivals()
    gradients.begin()
    with accelerator(monkeypatch) as events, gradients.rest_times(0.5):
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(lambda _: events.append("came"))
        model(torch.ones(1, 2)).sum().backward()
    return events


def test_the_copy_is_waited_for_before_it_is_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential()
    model.add_module("mlp", nn.Linear(2, 2, bias=False))
    model.add_module("head", nn.Linear(2, 2, bias=False))
    events = backward(model, monkeypatch)
    # Only for what is read at once, which is outside the scope.
    assert events == ["waited", "came", "came"]
    assert torch.equal(model.head.weight.grad, model.mlp(torch.ones(1, 2)).expand(2, 2) * 0.5)
