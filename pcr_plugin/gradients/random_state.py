"""Both passes must see the same random numbers: dropout, router jitter, clip_cov's choice."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """The state of torch's generators on the CPU and on this rank's device.

    Args:
        cpu: state of the CPU generator.
        device: state of the device's generators.
        module: `torch.cuda` or what stands for it.
    """

    cpu: Tensor
    device: Any
    module: Any

    @classmethod
    def capture(cls, module: Any) -> "RandomState":
        """Read the generators.

        Args:
            module: `torch.cuda`, or something else with `get_rng_state` and `set_rng_state`.
        """
        return cls(torch.get_rng_state(), module.get_rng_state(), module)

    def restore(self) -> None:
        """Set the generators back to where `capture` found them."""
        torch.set_rng_state(self.cpu)
        self.module.set_rng_state(self.device)
