"""The study's log-probabilities are veRL's, and its own function can be had back."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from verl.utils import torch_functional

from examples.study.engine.log_probs import put_back, take_all_at_once


@pytest.fixture(autouse=True)
def _veRLs_own() -> Iterator[None]:
    put_back()
    yield
    put_back()


@pytest.mark.parametrize("shape", [(37, 50), (3, 9, 50)])
def test_values_and_gradients_are_those_of_verl(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(shape, dtype=torch.float32) * 5
    labels = torch.randint(0, shape[-1], shape[:-1])
    weights = torch.randn(shape[:-1])
    found = []
    for prepare in (put_back, take_all_at_once):
        prepare()
        own = logits.clone().requires_grad_()
        values = torch_functional.logprobs_from_logits(own, labels)
        (values * weights).sum().backward()
        found.append((values.detach(), own.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-7)


def test_twice_is_once_and_can_be_taken_back() -> None:
    own = torch_functional.logprobs_from_logits_v2
    take_all_at_once()
    first = torch_functional.logprobs_from_logits_v2
    take_all_at_once()
    assert torch_functional.logprobs_from_logits_v2 is first is not own
    put_back()
    assert torch_functional.logprobs_from_logits_v2 is own


def test_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="other has no logprobs_from_logits_v2"):
        take_all_at_once(ModuleType("other"))
