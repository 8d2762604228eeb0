"""Where the routers of a mixture of experts send the tokens of a mini-batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.oracle.architecture import Architecture
from tests.oracle.linear import Weights
from tests.oracle.model import routing
from tests.support.trajectory import Trajectory


def tokens_per_expert(
    weights: Weights, architecture: Architecture, trajectories: Sequence[Trajectory]
) -> Tensor:
    """(layers, experts) numbers of tokens, prompts included and padding not."""
    chosen = _routing(weights, architecture, trajectories).topk(architecture.experts_per_token)
    one_hot = torch.nn.functional.one_hot(chosen.indices, architecture.experts)
    return one_hot.sum(dim=(1, 2))


def closest_call(
    weights: Weights, architecture: Architecture, trajectories: Sequence[Trajectory]
) -> float:
    """The least distance between the probabilities of the last expert that was chosen and of the
    first that was not, over all tokens and layers; at 0 rounding decides.
    """
    ordered = _routing(weights, architecture, trajectories).sort(descending=True).values
    last = architecture.experts_per_token - 1
    return float((ordered[..., last] - ordered[..., last + 1]).min())


def _routing(
    weights: Weights, architecture: Architecture, trajectories: Sequence[Trajectory]
) -> Tensor:
    """(layers, tokens, experts) probabilities in float64."""
    exact = {name: w.double() for name, w in weights.items()}
    sequences = [torch.cat([row.prompt, row.response]) for row in trajectories]
    return torch.cat([routing(exact, tokens, architecture) for tokens in sequences], dim=1)
