"""What was measured, held against the bars that were set before."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.peers import DIFFERENCES
from benchmarks.ratios import ratio, shown

Row = Mapping[str, Any]
Rows = Mapping[str, Row]

# The least that the bars are about.
_WIDTH, _LAYERS, _TOKENS = 512, 4, 1000
# Times of a stock update, without and with activation checkpointing.
_PASSES = {"two_forward": (2.1, 2.1), "shared_forward": (1.75, 1.85)}
_STATISTICS = 0.03
# Beside what keeping a graph costs, in gradients of the scope.
_MEMORY = 1.1
# What a peer has to be compared with, by the words behind a comma; the layout they are in.
_KINDS = {"peers": "one block", "peers-mlps": "MLPs only"}


def verdict(report: Mapping[str, Any]) -> str:
    """Bars and what is beyond them; empty where nothing was measured that they are about.

    Args:
        report: as a file of results has it.
    """
    workloads = {
        name: {**report["workload"], **report["layouts"][name]} for name in report["layouts"]
    }
    large, small = (
        {n: rows for n, rows in report["results"].items() if _is_of_size(workloads[n]) is of_size}
        for of_size in (True, False)
    )
    lines = [
        *_of_passes(large, {name for name in large if workloads[name]["checkpointing"]}),
        *_of_shares(large, small),
        *_of_memory(large),
        *_of_peers(large),
    ]
    if not lines:
        return ""
    head = (
        "Against the bars that were set beforehand, for layouts of at least "
        f"{_LAYERS} layers of width {_WIDTH} and {_TOKENS:,} tokens in every micro-batch:"
    )
    return "\n".join([head, "", *lines, "", ""])


def _is_of_size(workload: Mapping[str, Any]) -> bool:
    sequences = workload["sequences"] // workload["micro_batches"]
    shortest = workload["prompt"] + int(workload["shortest"] * workload["response"])
    return (
        workload["width"] >= _WIDTH
        and workload["layers"] >= _LAYERS
        and sequences * shortest >= _TOKENS
    )


def _of_passes(results: Mapping[str, Rows], checkpointing: set[str]) -> Iterator[str]:
    for passes, bars in _PASSES.items():
        found = [
            (ratio(row, rows["stock"]), bars[layout in checkpointing], name, layout)
            for layout, rows in results.items()
            for name, row in _variants(rows)
            if name.startswith(passes)
        ]
        beyond = [
            f"{times:.3f} ({layout}: {name})" for times, bar, name, layout in found if times > bar
        ]
        if found:
            most = max(times for times, *_ in found)
            bar = " or, with checkpointing, ".join(dict.fromkeys(f"{each:g}" for each in bars))
            told = f"{_told(len(found), beyond)}; the most is {most:.3f}"
            yield f"- `{passes}` at most {bar} times stock: {told}."


def _of_shares(large: Mapping[str, Rows], small: Mapping[str, Rows]) -> Iterator[str]:
    found, others = list(_shares(large)), [share for share, _ in _shares(small)]
    if found:
        beyond = [told for share, told in found if share > _STATISTICS]
        most = f" In the smaller layouts the most is {100 * max(others):.2f} %." if others else ""
        yield f"- Statistics and combine at most 3 %: {_told(len(found), beyond)}.{most}"


def _shares(results: Mapping[str, Rows]) -> Iterator[tuple[float, str]]:
    for layout, rows in results.items():
        for name, row in _variants(rows):
            if row["share"]:
                yield row["share"], f"{100 * row['share']:.2f} % ({layout}: {name})"


def _of_memory(results: Mapping[str, Rows]) -> Iterator[str]:
    found = [
        ((row["peak"] - rows["stock"]["peak"]) / row["scope"], name, layout)
        for layout, rows in results.items()
        for name, row in _variants(rows)
        if name.startswith("two_forward") and row["scope"]
    ]
    beyond = [f"{over:.2f} ({layout}: {name})" for over, name, layout in found if over > _MEMORY]
    if found:
        told = f"{_told(len(found), beyond)}. `shared_forward` holds a graph beside it"
        yield f"- Memory of `two_forward` at most 1.1 gradients of the scope: {told}."


def _of_peers(results: Mapping[str, Rows]) -> Iterator[str]:
    """Our fastest without FSDP and with it, with its own memory, against each with its own."""
    for layout, kind in _KINDS.items():
        rows = results.get(layout, {})
        theirs = {n: r for n, r in rows.items() if n in DIFFERENCES and n != "plain torch"}
        ours = {n: r for n, r in _variants(rows) if kind in n}
        for unsharded in (True, False):
            fitting = {n: r for n, r in ours.items() if n.endswith(", unsharded") is unsharded}
            if theirs and fitting:
                yield _against(theirs, fitting, rows["stock"])


def _against(theirs: Rows, ours: Rows, stock: Row) -> str:
    best = min(ours, key=lambda name: ratio(ours[name], stock))
    told = []
    for word, is_faster in (("faster", True), ("not faster", False)):
        found = [
            f"{_size(name, row)}, {shown(ours[best], row)} of its time"
            for name, row in theirs.items()
            if (ratio(ours[best], row) < 1) is is_faster
        ]
        told += [f"{word} than {', '.join(found)}"] if found else []
    smaller = sum(ours[best]["peak"] < row["peak"] for row in theirs.values())
    told.append(f"smaller than {smaller} of {len(theirs)}")
    return f"- Against the peers, {_size(best, ours[best])}: {'; '.join(told)}."


def _size(name: str, row: Row) -> str:
    return f"`{name}` ({row['median']:.3f} s, {row['peak'] / 2**20:.1f} MiB)"


def _variants(rows: Rows) -> Iterator[tuple[str, Row]]:
    """Of ours, as far as they were not refused."""
    for name, row in rows.items():
        if name != "stock" and name not in DIFFERENCES and "refused" not in row:
            yield name, row


def _told(number: int, beyond: list[str]) -> str:
    kept = number - len(beyond)
    return f"{kept} of {number}" + (f"; beyond it {', '.join(beyond)}" if beyond else "")
