"""PCGrad on two full gradients, in the manner of WeiChengTseng/Pytorch-PCGrad (`pcgrad.py`).

The steps and the copies are the library's: gradients cleared before every loss, cloned and
concatenated after it; every vector copied, projected on every other in random order where their
product is negative, the copies stacked and averaged; the result cut, cloned and set. Added is only
that vectors add up over micro-batches, and with them that gradients are set once, at the end, and
that parameters can be left out of the projection.
"""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class FlattenedPCGrad:
    """Keeps one vector per loss.

    Args:
        optimizer: its parameters are trained.
        projects: whether a parameter is one of those whose gradients are projected; the others
            get the mean of their two.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        projects: Callable[[Tensor], bool] = lambda _: True,
    ) -> None:
        self._optimizer = optimizer
        self._projects = projects
        self._vectors: list[Tensor] = []

    def backward(self, losses: Sequence[Tensor]) -> None:
        """Run the losses of a micro-batch backward and add their vectors.

        Args:
            losses: of one graph, which the library keeps.
        """
        found = []
        for loss in losses:
            self._optimizer.zero_grad()
            loss.backward(retain_graph=True)
            clones = [p.grad.clone() for p in self._trained()]
            found.append(torch.cat([clone.flatten() for clone in clones]))
        if self._vectors:
            for total, vector in zip(self._vectors, found, strict=True):
                total.add_(vector)
        else:
            self._vectors = found

    @torch.no_grad()
    def finish(self) -> None:
        """Set the projected gradient and forget the vectors."""
        projected = self._projected()
        self._vectors = []
        start = 0
        for parameter in self._trained():
            size = parameter.numel()
            parameter.grad = projected[start : start + size].view_as(parameter).clone()
            start += size

    def _projected(self) -> Tensor:
        copies = [vector.clone() for vector in self._vectors]
        # Those that are projected come first, see `_trained`.
        size = sum(p.numel() for p in self._trained() if self._projects(p))
        for copy in (each[:size] for each in copies):
            random.shuffle(self._vectors)
            for other in (each[:size] for each in self._vectors):
                product = torch.dot(copy, other)
                if product < 0:
                    copy -= product * other / other.norm() ** 2
        return torch.stack(copies).mean(dim=0)

    def _trained(self) -> list[Tensor]:
        groups = self._optimizer.param_groups
        found = [p for group in groups for p in group["params"] if p.grad is not None]
        return sorted(found, key=self._projects, reverse=True)
