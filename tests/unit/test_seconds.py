"""`pcr/seconds`: what it measures."""

import time

import torch
from torch import Tensor

from tests.unit.test_update import Host, batch_of, rule


def test_the_time_is_logged() -> None:
    assert 0 < Host(rule()).step(batch_of())["pcr/seconds"] < 60


def test_the_time_ends_when_the_device_has_combined() -> None:
    """A GPU is given the combination, and does it later."""
    held: list[dict[str, Tensor]] = []

    class Device:
        """What is there when it has been waited for."""

        def synchronize(self) -> None:
            held.append({name: value.clone() for name, value in host.grads().items()})
            time.sleep(0.02)

    host = Host(rule(), device_module=Device())
    metrics = host.step(batch_of())
    first, last = held
    for name, value in host.grads().items():
        assert torch.equal(last[name], value)
    inside = host.gradients.names[0]
    assert not torch.equal(first[inside], last[inside]), "first the passes are waited for"
    assert metrics["pcr/seconds"] > 0.02
