"""The command behind docs/estimators.md, in its small version, and what its numbers must obey."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.estimators.exact import Exact
from benchmarks.estimators.orders import random_orders, units

ROOT = Path(__file__).parents[2]
BOTH = ("pla", "sta")


def exact(weights: torch.Tensor) -> Exact:
    """Of sequences with random gradients, one block."""
    draw = torch.Generator().manual_seed(0)
    gradients = torch.randn(2, len(weights), 40, generator=draw, dtype=torch.float64) + 0.3
    contributions = weights[:, None] * gradients
    products = (contributions @ contributions.mT)[None]
    return Exact(products, weights, torch.zeros(1), 0.0)


def test_sums_of_products_are_those_of_the_gradients() -> None:
    """Equal weights: V is the covariance's trace over N, whichever way it is computed."""
    its = exact(torch.full((16,), 1 / 16, dtype=torch.float64))
    draw = torch.Generator().manual_seed(0)
    gradients = torch.randn(2, 16, 40, generator=draw, dtype=torch.float64) + 0.3
    expected = (gradients.var(dim=1).sum(dim=1) / 16)[None]
    assert torch.allclose(its.variances, expected, rtol=1e-12)
    assert torch.allclose(its.residual(), expected, rtol=1e-12)
    assert torch.allclose(its.spread().sum(dim=0), expected, rtol=1e-12)
    assert torch.allclose(its.redrawn, expected, rtol=0.1)


@pytest.mark.parametrize("estimator", ["micro_batch", "split_half"])
def test_mean_over_orders_is_the_exact_variance_for_equal_weights(estimator: str) -> None:
    its = exact(torch.full((16,), 1 / 16, dtype=torch.float64))
    orders = random_orders(16, 500, seed=1)
    found = torch.stack([its.with_units(units(estimator, order, 4)) for order in orders])
    errors = found.std(dim=0) / len(orders) ** 0.5
    assert ((found.mean(dim=0) - its.variances).abs() < 4 * errors).all()


def test_more_units_have_less_spread_for_equal_weights() -> None:
    """Only then: on the small batch of the report a few long answers decide, and two can win."""
    its = exact(torch.full((32,), 1 / 32, dtype=torch.float64))

    def spread(estimator: str, micro_batches: int) -> torch.Tensor:
        orders = random_orders(32, 500, seed=1)
        found = [its.with_units(units(estimator, order, micro_batches)) for order in orders]
        return torch.stack(found).std(dim=0)

    assert (spread("micro_batch", 16) < 0.7 * spread("micro_batch", 4)).all()
    assert (spread("micro_batch", 4) < 0.7 * spread("split_half", 16)).all()


def test_with_other_weights_only_the_residuals_are_what_the_gradient_varies_by() -> None:
    weights = torch.tensor([1.0, 9.0] * 100, dtype=torch.float64)
    its = exact(weights / weights.sum())
    assert torch.allclose(its.residual(), its.redrawn, rtol=0.1)
    # Per token all are equally noisy: sum w_i^2 is 0.0082, and 1 / N 0.005.
    assert torch.allclose(its.variances / its.redrawn, torch.tensor(0.61).double(), rtol=0.1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command has written."""
    folder = tmp_path_factory.mktemp("estimators")
    places = ["--out", str(folder), "--start", str(folder / "start")]
    command = [sys.executable, "-m", "benchmarks.estimators", "--small", *places]
    environment = os.environ | {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "estimators.json").read_text())
    return found


def rows(report: dict[str, Any], estimator: str) -> list[dict[str, Any]]:
    found = [row for row in report["estimates"] if row["estimator"] == estimator]
    assert len(found) == 2, "two numbers of micro-batches, or of probes"
    return found


def test_sequences_gradients_add_up_to_the_batch_s(report: dict[str, Any]) -> None:
    for batch in report["batches"]:
        assert 0 < batch["rest"] < 1e-5
        assert all(value > 0 for block in batch["variances"] for value in block)


def test_whole_updates_give_what_was_measured(report: dict[str, Any]) -> None:
    """Under another order, another number of micro-batches, and in a whole step of veRL."""
    assert set(report["differences"]) == {"micro_batch", "split_half", "sequence"}
    for name, difference in report["differences"].items():
        assert difference < 1e-4, name


def test_probes_have_no_bias_and_more_of_them_less_spread(report: dict[str, Any]) -> None:
    fewer, more = rows(report, "sequence")
    assert fewer["probes"] < more["probes"]
    for objective in BOTH:
        for row in (fewer, more):
            bias, error = row[f"bias_{objective}"], row[f"bias_{objective}_error"]
            assert abs(bias) < 4 * error < 1
        assert more[f"sd_{objective}"] < fewer[f"sd_{objective}"]
    assert more["alpha_error"] < fewer["alpha_error"]


def test_halves_are_two_units_at_every_number_of_micro_batches(report: dict[str, Any]) -> None:
    few_halves, many_halves = rows(report, "split_half")
    for objective in BOTH:
        name = f"sd_{objective}"
        assert many_halves[name] == pytest.approx(few_halves[name], rel=0.5)


def test_memory_grows_with_the_probes(report: dict[str, Any]) -> None:
    held = [report["memory"][str(probes)] for probes in report["settings"]["probes"]]
    assert 0 < held[0] < held[1]
    # Of the rows alone: K^2 numbers of 8 bytes for every row and layer.
    settings = report["settings"]
    count = settings["prompts"] * settings["answers"]
    least = [8 * k**2 * count * report["layers"] for k in settings["probes"]]
    assert all(one >= bound for one, bound in zip(held, least, strict=True))


def test_page_has_every_row(out: Path, report: dict[str, Any]) -> None:
    lines = (out / "estimators.md").read_text().splitlines()
    shown = [line for line in lines if line.startswith(("| micro_b", "| split_h", "| sequence"))]
    costs = 2 + len(report["settings"]["probes"])
    assert len(shown) == len(report["estimates"]) + costs
