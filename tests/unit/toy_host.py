"""A host small enough to recompute by hand: a two-layer network, micro-batches, two losses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcr_plugin.estimators import MicroBatchEstimator
from tests.unit.explicit_vectors import generator

WIDTH = 6


class Mlp(nn.Module):
    """Two linear maps with biases, called `layers.N.mlp`."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.up_proj = nn.Linear(WIDTH, 2 * WIDTH)
        self.down_proj = nn.Linear(2 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(self.dropout(torch.tanh(self.up_proj(hidden))))


class Layer(nn.Module):
    """A residual MLP."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.mlp = Mlp(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.mlp(hidden)


class Network(nn.Module):
    """An input map, layers with MLPs, an output map. float64."""

    def __init__(self, seed: int, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.input = nn.Linear(WIDTH, WIDTH)
            self.layers = nn.ModuleList([Layer(dropout) for _ in range(layers)])
            self.head = nn.Linear(WIDTH, 1)
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.input(inputs)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden)[:, 0]


@dataclass(frozen=True)
class Batch:
    """Samples with what the two losses compare the output to.

    Args:
        inputs: (N, WIDTH).
        advantages: (N,) weights of the surrogate.
        reference: (N,) outputs of the reference.
    """

    inputs: Tensor
    advantages: Tensor
    reference: Tensor

    def part(self, rows: slice) -> "Batch":
        """Some of the samples."""
        return Batch(self.inputs[rows], self.advantages[rows], self.reference[rows])

    def __len__(self) -> int:
        return len(self.inputs)


Loss = Callable[[Tensor, Batch], Tensor]


def surrogate(output: Tensor, batch: Batch) -> Tensor:
    """Sum over samples of -A pi."""
    return -(batch.advantages * output).sum()


def kl(output: Tensor, batch: Batch) -> Tensor:
    """Sum over samples of a square distance to the reference."""
    return 0.5 * (output - batch.reference).square().sum()


def conflicting_batch(seed: int, size: int) -> Batch:
    """Advantages that pull the outputs away from the reference, with noise."""
    source = generator(seed)
    inputs = torch.randn(size, WIDTH, generator=source, dtype=torch.float64)
    reference = torch.randn(size, generator=source, dtype=torch.float64)
    noise = torch.randn(size, generator=source, dtype=torch.float64)
    return Batch(inputs, -reference + 0.5 * noise, reference)


def cut(batch: Batch, sizes: Sequence[int]) -> Iterator[Batch]:
    """Micro-batches of the given sizes."""
    start = 0
    for size in sizes:
        yield batch.part(slice(start, start + size))
        start += size
    assert start == len(batch), "the sizes must cover the batch"


def accumulate(
    network: nn.Module,
    batch: Batch,
    sizes: Sequence[int],
    loss: Loss,
    estimator: MicroBatchEstimator | None = None,
) -> None:
    """Forward and backward over micro-batches; gradients are means over the whole batch."""
    for micro_batch in cut(batch, sizes):
        value = loss(network(micro_batch.inputs), micro_batch) / len(batch)
        if estimator is not None:
            estimator.start_unit(float(len(micro_batch)))
        value.backward()


def gradient_of(network: nn.Module, batch: Batch, loss: Loss, count: int) -> dict[str, Tensor]:
    """The gradient of a part of a batch of `count` samples, by name; leaves `.grad` alone."""
    value = loss(network(batch.inputs), batch) / count
    names, parameters = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, parameters), strict=True))


def flat(gradients: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    """One vector of some of the gradients."""
    return torch.cat([gradients[name].reshape(-1) for name in names])
