"""Both passes see the same random numbers, on the CPU and on the device."""

from types import SimpleNamespace

import torch
from torch import Tensor

from pcr_plugin.gradients import RandomState


def device_module(seed: int) -> SimpleNamespace:
    """A generator that stands for a device's, with torch.cuda's two functions."""
    own = torch.Generator().manual_seed(seed)
    return SimpleNamespace(generator=own, get_rng_state=own.get_state, set_rng_state=own.set_state)


def draw(module: SimpleNamespace) -> tuple[Tensor, Tensor]:
    return torch.rand(4), torch.rand(4, generator=module.generator)


def test_after_restoring_the_same_numbers_come_again() -> None:
    module = device_module(1)
    draw(module)
    state = RandomState.capture(module)
    first = draw(module)
    second = draw(module)
    assert not torch.equal(first[0], second[0])
    for _ in range(2):  # a state can be used more than once
        state.restore()
        again = draw(module)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


def test_capturing_draws_nothing() -> None:
    module = device_module(2)
    torch.manual_seed(3)
    expected = draw(module)
    module = device_module(2)
    torch.manual_seed(3)
    RandomState.capture(module)
    got = draw(module)
    assert torch.equal(expected[0], got[0])
    assert torch.equal(expected[1], got[1])
