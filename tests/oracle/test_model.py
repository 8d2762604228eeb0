"""The losses and their gradients, against arithmetic; the model itself is in test_library."""

import pytest
import torch

from tests.oracle.architecture import trainable
from tests.oracle.gradients import unit_gradients
from tests.oracle.model import Architecture, Weights
from tests.oracle.objective import Objective, Totals, losses
from tests.support.mini_batches import mini_batch
from tests.support.tiny_model import MODELS, perturbed, random_weights
from tests.support.trajectory import Trajectory

ROWS = 6
OBJECTIVES = [
    Objective(),
    Objective(aggregation="seq-mean-token-mean", kl="low_var_kl", entropy=0.01),
    Objective(aggregation="seq-mean-token-sum", kl="k2", entropy=0.02, temperature=0.7),
]


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> tuple[Architecture, Weights]:
    """Sizes and random weights."""
    architecture = MODELS[request.param]
    return architecture, random_weights(architecture, seed=3)


@pytest.fixture(scope="module")
def batch(model: tuple[Architecture, Weights]) -> list[Trajectory]:
    """A few rows with a reference nearby."""
    reference = perturbed(model[1], 0.1, seed=7)
    return mini_batch(*model, reference, rows=ROWS, seed=1)


@pytest.fixture(scope="module")
def on_policy(model: tuple[Architecture, Weights]) -> list[Trajectory]:
    """A few rows whose reference is the policy itself."""
    return mini_batch(*model, model[1], rows=ROWS, seed=1)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.aggregation)
def test_units_add_up_however_they_are_cut(
    objective: Objective, model: tuple[Architecture, Weights], batch: list[Trajectory]
) -> None:
    architecture, weights = model
    (whole,) = unit_gradients(weights, architecture, batch, [range(ROWS)], objective)
    parts = unit_gradients(weights, architecture, batch, [[4, 0], [1], [2, 3, 5]], objective)
    assert sum(unit.size for unit in parts) == whole.size
    for kind in ("plasticity", "stability"):
        for name, gradient in getattr(whole, kind).items():
            total = torch.stack([getattr(unit, kind)[name] for unit in parts]).sum(dim=0)
            torch.testing.assert_close(total, gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kl", ["k2", "k3+", "low_var_kl"])
def test_no_stability_gradient_where_policy_and_reference_agree(
    kl: str, model: tuple[Architecture, Weights], on_policy: list[Trajectory]
) -> None:
    """Up to the reference's log-probabilities, which are kept in float32."""
    architecture, weights = model
    (unit,) = unit_gradients(weights, architecture, on_policy, [range(ROWS)], Objective(kl=kl))
    p, s = ([*map(torch.norm, g.values())] for g in (unit.plasticity, unit.stability))
    assert max(s) < 1e-6 * max(p)


def test_gradients_are_finite_differences(
    model: tuple[Architecture, Weights], batch: list[Trajectory]
) -> None:
    """Along a random direction, for surrogate, entropy and KL together."""
    architecture, weights = model
    objective = Objective(aggregation="seq-mean-token-mean", kl="low_var_kl", entropy=0.1)
    generator = torch.Generator().manual_seed(5)
    direction = {
        n: torch.randn(weights[n].shape, generator=generator)
        for n in trainable(architecture, weights)
    }
    (unit,) = unit_gradients(weights, architecture, batch, [range(ROWS)], objective)
    slope = sum(
        float(((unit.plasticity[n] + 0.3 * unit.stability[n]) * d).sum())
        for n, d in direction.items()
    )
    width = 1e-6
    ahead, behind = (
        _value(weights, direction, sign * width, architecture, batch, objective) for sign in (1, -1)
    )
    # Truncation of the order width**2, rounding of the order 1e-16 / width.
    assert (ahead - behind) / (2 * width) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def _value(
    weights: Weights,
    direction: Weights,
    step: float,
    architecture: Architecture,
    batch: list[Trajectory],
    objective: Objective,
) -> float:
    exact = {n: w.double() for n, w in weights.items()}
    moved = exact | {n: exact[n] + step * d.double() for n, d in direction.items()}
    plasticity, stability = losses(moved, architecture, batch, objective, Totals.of(batch))
    return float(plasticity + 0.3 * stability)
