"""The formula for collectives is what updates call, and what it is used for is arithmetic."""

import json
from typing import Any

import pytest

from benchmarks.scaling.expected import HOST, OURS, PASSES, PLANS, Collective, collectives
from benchmarks.scaling.modelled import FLOPS, deferred_table, statistics_table, step
from benchmarks.scaling.network import Network, total
from benchmarks.scaling.page import expected_counts, found_counts
from benchmarks.scaling.sizes import COUNTED
from benchmarks.shapes import SHAPES
from tests.support.launch import run_ranks


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks have called in every update."""
    folder = tmp_path_factory.mktemp("scaling")
    run_ranks("benchmarks.scaling.worker", 2, folder, arguments=["small"])
    found: list[dict[str, Any]] = json.loads((folder / "found.json").read_text())["counts"]
    return found


def test_number_and_size_of_every_collective(rows: list[dict[str, Any]]) -> None:
    assert [row["update"] for row in rows] == [name for _, name in COUNTED]
    for row in rows:
        assert found_counts(row) == expected_counts(row), row["update"]


def test_statistics_do_not_grow_with_ranks_or_tokens() -> None:
    shape = SHAPES["qwen2.5-7b"]
    for micro_batches in (1, 8):
        ours = [
            c for c in collectives(shape, PLANS["two_forward"], micro_batches) if c.whose == OURS
        ]
        assert ours == [Collective(kind="all-reduce", bytes=28 * 11 * 8, times=1, whose=OURS)]


def test_second_run_costs_what_the_first_does() -> None:
    network, shape = Network(), SHAPES["qwen2.5-7b"]
    found = collectives(shape, PLANS["two_forward"], 4)
    host, second = (total(network, found, 64, whose) for whose in (HOST, PASSES))
    # Only the norm of the gradient is not computed again.
    assert second[0] == host[0] - 1
    assert second[1] == pytest.approx(host[1], rel=1e-6)
    assert second[2] == pytest.approx(host[2], rel=1e-3)


def test_shared_forward_pass_gathers_less_and_never_waits_to_reduce() -> None:
    shape = SHAPES["qwen2.5-7b"]

    def sent(update: str, kind: str, deferred: bool = False) -> int:
        found = collectives(shape, PLANS[update], 4, deferred=deferred)
        return sum(c.bytes * c.times for c in found if c.kind == kind and c.whose == PASSES)

    whole = 4 * shape.parameters
    assert sent("two_forward", "all-gather") == 8 * whole
    assert sent("shared_forward", "all-gather") == 4 * whole
    assert sent("two_forward", "reduce-scatter") == 4 * whole
    assert sent("shared_forward", "reduce-scatter") == 4 * whole
    scope = 4 * shape.layers * shape.mlp_parameters
    assert sent("shared_forward, sequence, combined", "reduce-scatter") == 4 * scope
    assert sent("two_forward", "reduce-scatter", deferred=True) == whole
    assert sent("shared_forward", "reduce-scatter", deferred=True) == 7 * whole


def test_seconds_of_a_collective() -> None:
    network = Network(
        gpus=8, latency=1.0, latency_between=10.0, bandwidth=100.0, bandwidth_between=50.0
    )
    gather = Collective(kind="all-gather", bytes=800, times=1, whose=HOST)
    assert network.seconds(gather, 8) == pytest.approx(3 + 700 / 100)
    assert network.seconds(gather, 32) == pytest.approx(3 + 20 + 775 / 50)
    sums = Collective(kind="all-reduce", bytes=800, times=3, whose=HOST)
    assert network.seconds(sums, 8) == pytest.approx(3 * 2 * (3 + 700 / 100))


def cells(table: str, model: str, gpus: int) -> list[str]:
    """Of the row of a modelled table."""
    [found] = [line for line in table.splitlines() if line.startswith(f"| {model} | {gpus} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_shared_forward_pass_has_six_small_sums_with_four_micro_batches() -> None:
    """Its table, whether all can, and one per micro-batch; all of it latency."""
    ours = [one for one in step(SHAPES["qwen2.5-7b"], "shared_forward") if one.whose == OURS]
    assert sum(one.times for one in ours) == 6
    row = cells(statistics_table(Network()), "qwen2.5-7b", 8)
    seconds = 6 * 2 * 3 * Network().latency
    assert row[3] == f"4.4, {1e6 * seconds:.0f}"
    large = cells(statistics_table(Network()), "qwen2.5-0.5b", 1024)
    # More of a step of a smaller model on more GPUs.
    assert float(large[-1].rstrip(" %")) > float(row[-1].rstrip(" %")) > 0


def test_tokens_for_which_waiting_is_as_good_as_sharing() -> None:
    """There a second forward pass takes as long as the reductions that it saves."""
    shape = SHAPES["qwen2.5-7b"]
    row = cells(deferred_table(Network()), "qwen2.5-7b", 64)
    tokens = int(row[-1].replace(",", ""))
    two, shared = (
        total(Network(), step(shape, update, deferred=True), 64, PASSES)[2]
        for update in ("two_forward", "shared_forward")
    )
    forward = 2 * shape.parameters * tokens / FLOPS
    assert two + forward == pytest.approx(shared, rel=1e-3)
    assert row[3:5] == [f"{two:.2f} s", f"{shared:.2f} s"]
