"""What the pages say of the bars and of the gains, of numbers that are made up here."""

from typing import Any

import pytest

from benchmarks.gains import gains_table
from benchmarks.verdict import verdict

WORKLOAD = {
    "width": 512,
    "layers": 4,
    "sequences": 16,
    "prompt": 64,
    "response": 192,
    "shortest": 0.5,
    "micro_batches": 2,
    "checkpointing": False,
}


def row(median: float, peak: int = 0, **others: Any) -> dict[str, Any]:
    return {"median": median, "peak": peak * 2**20, "share": 0.0, "scope": 0, **others}


def report(
    rows: dict[str, dict[str, Any]], layout: str = "passes", **changes: Any
) -> dict[str, Any]:
    found = {"stock": row(1.0, 100), **rows}
    return {"workload": WORKLOAD, "layouts": {layout: changes}, "results": {layout: found}}


@pytest.mark.parametrize(
    ("checkpointing", "told"),
    [
        (False, "1 of 2; beyond it 1.800 (passes: shared_forward, b); the most is 1.800"),
        (True, "2 of 2; the most is 1.800"),
    ],
)
def test_times_beyond_a_bar_are_named(checkpointing: bool, told: str) -> None:
    rows = {"shared_forward, a": row(1.7), "shared_forward, b": row(1.8)}
    text = verdict(report(rows, checkpointing=checkpointing))
    assert (
        f"`shared_forward` at most 1.75 or, with checkpointing, 1.85 times stock: {told}." in text
    )
    assert "two_forward" not in text


@pytest.mark.parametrize(
    "changes", [{"width": 256}, {"layers": 2}, {"micro_batches": 4}, {"shortest": 0.1}]
)
def test_smaller_layouts_are_not_what_the_bars_are_about(changes: dict[str, Any]) -> None:
    rows = {"two_forward": row(3.0, share=0.5, scope=2**20)}
    assert verdict(report(rows)) != ""
    assert verdict(report(rows, **changes)) == ""


def test_the_name_of_a_layout_does_not_matter() -> None:
    assert "3.000 (2k: two_forward)" in verdict(report({"two_forward": row(3.0)}, layout="2k"))


def test_statistics_of_smaller_layouts_are_told_beside_it() -> None:
    both = report({"two_forward": row(2.0, share=0.031)})
    both["layouts"]["small"] = {"layers": 1}
    both["results"]["small"] = {"stock": row(1.0), "pcr (paper)": row(2.0, share=0.07)}
    text = verdict(both)
    assert "at most 3 %: 0 of 1; beyond it 3.10 % (passes: two_forward)." in text
    assert "In the smaller layouts the most is 7.00 %." in text


def test_memory_is_over_stock_in_gradients_of_the_scope() -> None:
    rows = {
        "two_forward": row(2.0, 110, scope=10 * 2**20),
        "two_forward, split_half": row(2.0, 120, scope=10 * 2**20),
    }
    text = verdict(report(rows))
    assert "1.1 gradients of the scope: 1 of 2; beyond it 2.00 (passes: two_forward, split" in text


def test_the_fastest_of_ours_is_compared_with_every_peer_by_its_own_memory() -> None:
    rows = {
        "two_forward, one block": row(2.2, 120),
        "shared_forward, one block": row(1.9, 150),
        "shared_forward, one block, unsharded": row(1.5, 130),
        "shared_forward, sequence": row(1.0, 100),  # another rule's work
        "plain torch": row(0.9, 90),  # not a peer: one gradient
        "TorchJD, backward": row(2.0, 140),
        "TorchJD, mtl_backward": row(1.6, 200),
        "shared_forward, sequence, refused": {"refused": "why"},
    }
    assert (
        "- Against the peers, `shared_forward, one block` (1.900 s, 150.0 MiB): faster than "
        "`TorchJD, backward` (2.000 s, 140.0 MiB), 0.95 of its time; not faster than "
        "`TorchJD, mtl_backward` (1.600 s, 200.0 MiB), 1.19 of its time; smaller than 1 of 2.\n"
    ) in verdict(report(rows, layout="peers"))
    assert (
        "- Against the peers, `shared_forward, one block, unsharded` (1.500 s, 130.0 MiB): faster "
        "than `TorchJD, backward` (2.000 s, 140.0 MiB), 0.75 of its time, "
        "`TorchJD, mtl_backward` (1.600 s, 200.0 MiB), 0.94 of its time; smaller than 2 of 2.\n"
    ) in verdict(report(rows, layout="peers"))


def test_gains_are_of_the_same_layout() -> None:
    found = {
        "a": {
            "stock": row(2.0),
            "two_forward": row(4.0),
            "shared_forward": row(3.0),
            "shared_forward, sequence, run": row(3.0),
        },
        "b": {"stock": row(1.0), "shared_forward, sequence, skip": row(3.0)},
    }
    assert gains_table(found).splitlines()[2:4] == [
        "| one forward pass for both objectives | a | 2.00 | 1.50 | 25 % |",
        "",
    ]
    assert gains_table({"b": found["b"]}) == ""


def test_where_all_times_are_kept_gains_are_of_one_repeat_each() -> None:
    """The machine was ten times slower in the second repeat."""
    found = {
        "stock": row(20.0, seconds=[2.0, 20.0, 2.0]),
        "two_forward": row(40.0, seconds=[4.0, 40.0, 4.4]),
        "shared_forward": row(3.0, seconds=[3.0, 30.0, 3.0]),
    }
    (line,) = gains_table({"a": found}).splitlines()[2:3]
    assert line == (
        "| one forward pass for both objectives | a | 2.00 (2.00-2.20) | 1.50 (1.50-1.50) "
        "| 25 (25 to 32) % |"
    )
