"""Gradients of the two losses, unit by unit, by plain autograd in float64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.oracle.architecture import trainable
from tests.oracle.model import Architecture, Weights
from tests.oracle.objective import Objective, Totals, losses
from tests.support.trajectory import Trajectory

# Parameter name to gradient.
Gradient = dict[str, Tensor]


@dataclass(frozen=True)
class Unit:
    """One unit's contributions g_m to both gradients.

    Attributes:
        plasticity: gradient of its share of the surrogate loss.
        stability: gradient of its share of the KL loss, without beta.
        size: n_m, its counted tokens or its sequences that have any, as the aggregation divides.
    """

    plasticity: Gradient
    stability: Gradient
    size: float


def unit_gradients(
    weights: Weights,
    architecture: Architecture,
    trajectories: Sequence[Trajectory],
    units: Sequence[Sequence[int]],
    objective: Objective,
) -> list[Unit]:
    """Differentiate both losses over every unit, one after the other.

    Args:
        weights: all parameters, any dtype; promoted to float64.
        architecture: sizes of the model.
        trajectories: the global mini-batch.
        units: rows of each unit; together every row once.
        objective: what is differentiated.

    Returns:
        One entry per unit, in order, with the gradients of what is trained.
    """
    assert sorted(row for unit in units for row in unit) == list(range(len(trajectories)))
    exact = {name: w.double() for name, w in weights.items()}
    trained = {name: exact[name].requires_grad_() for name in trainable(architecture, exact)}
    totals = Totals.of(trajectories)
    result = []
    for rows in units:
        members = [trajectories[row] for row in rows]
        plasticity, stability = losses(exact, architecture, members, objective, totals)
        size = _size(members, objective)
        result.append(Unit(_gradient(plasticity, trained), _gradient(stability, trained), size))
    return result


# What is measured of a gradient instead of the gradient itself.
Sketch = Callable[[Gradient], Gradient]


def sketched(units: Sequence[Unit], sketch: Sketch) -> list[Unit]:
    """The same units, with another view of their gradients."""
    return [Unit(sketch(unit.plasticity), sketch(unit.stability), unit.size) for unit in units]


def flat(gradient: Gradient, names: Sequence[str]) -> Tensor:
    """Some parameters' gradient as one vector."""
    return torch.cat([gradient[name].flatten() for name in names])


def _gradient(loss: Tensor, weights: Weights) -> Gradient:
    gradients = torch.autograd.grad(loss, list(weights.values()), retain_graph=True)
    return dict(zip(weights, gradients, strict=True))


def _size(members: Sequence[Trajectory], objective: Objective) -> float:
    if objective.aggregation == "token-mean":
        return sum(t.tokens for t in members)
    return float(sum(t.tokens > 0 for t in members))
