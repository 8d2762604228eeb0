"""What was measured, held against the bars that were set before."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.peers import DIFFERENCES

Row = Mapping[str, Any]
Results = Mapping[str, Mapping[str, Row]]

# Times of a stock update, without and with activation checkpointing.
_PASSES = {"two_forward": (2.1, 2.1), "shared_forward": (1.75, 1.85)}
_STATISTICS = 0.03
# Beside what keeping a graph costs, in gradients of the scope.
_MEMORY = 1.1
# What a peer has to be compared with, by the words behind a comma; the layout they are in.
_KINDS = {"peers": "one block", "peers-mlps": "MLPs only"}


def verdict(results: Results) -> str:
    """Bars and what is beyond them; empty where nothing was measured that they are about.

    Args:
        results: per layout those of each variant. Layouts named `passes` and `peers` have at least
            width 512, 4 layers and 1,000 tokens in a micro-batch, which is what the bars ask for.
    """
    ours = {name: rows for name, rows in results.items() if name.startswith(("passes", "peers"))}
    lines = [*_of_passes(ours), *_of_shares(ours), *_of_memory(ours), *_of_peers(ours)]
    if not lines:
        return ""
    return "\n".join(
        ["Against the bars that were set for layouts of this size:", "", *lines, "", ""]
    )


def _of_passes(results: Results) -> Iterator[str]:
    for passes, bars in _PASSES.items():
        found = [
            (row["median"] / rows["stock"]["median"], bars["checkpointing" in layout], name, layout)
            for layout, rows in results.items()
            for name, row in _variants(rows)
            # `one block` is another rule's work, for the peers.
            if name.startswith(passes) and "one block" not in name and "recomputed" not in name
        ]
        beyond = [
            f"{ratio:.3f} ({layout}: {name})" for ratio, bar, name, layout in found if ratio > bar
        ]
        if found:
            most = max(ratio for ratio, *_ in found)
            bar = " or ".join(dict.fromkeys(f"{each:g}" for each in bars))
            told = f"{_told(found, beyond)}; the most is {most:.3f}"
            yield f"- `{passes}` at most {bar} times stock: {told}."


def _of_shares(results: Results) -> Iterator[str]:
    found = [
        (row["share"], f"{100 * row['share']:.2f} % ({layout}: {name})")
        for layout, rows in results.items()
        for name, row in _variants(rows)
        if row["share"]
    ]
    beyond = [told for share, told in found if share > _STATISTICS]
    if found:
        yield f"- Statistics and combine at most 3 %: {_told(found, beyond)}."


def _of_memory(results: Results) -> Iterator[str]:
    found = [
        ((row["peak"] - rows["stock"]["peak"]) / row["scope"], name, layout)
        for layout, rows in results.items()
        for name, row in _variants(rows)
        if name.startswith("two_forward") and row["scope"] and "one block" not in name
    ]
    beyond = [f"{over:.2f} ({layout}: {name})" for over, name, layout in found if over > _MEMORY]
    if found:
        told = f"{_told(found, beyond)}. `shared_forward` holds a graph beside it"
        yield f"- Memory of `two_forward` at most 1.1 gradients of the scope: {told}."


def _of_peers(results: Results) -> Iterator[str]:
    for layout, kind in _KINDS.items():
        rows = results.get(layout, {})
        theirs = {n: r for n, r in rows.items() if n in DIFFERENCES and n != "plain torch"}
        ours = {n: r for n, r in _variants(rows) if kind in n}
        if not theirs or not ours:
            continue
        fastest, rival = (min(each, key=lambda n: each[n]["median"]) for each in (ours, theirs))
        smallest, thrifty = (min(each, key=lambda n: each[n]["peak"]) for each in (ours, theirs))
        times = ours[fastest]["median"], theirs[rival]["median"]
        peaks = (f"{r['peak'] / 2**20:.1f} MiB" for r in (ours[smallest], theirs[thrifty]))
        word = "faster" if times[0] < times[1] else "slower"
        yield (
            f"- Against the peers, {kind}: {word}, {times[0]:.3f} s ({fastest}) to "
            f"{times[1]:.3f} s ({rival}); the smallest peaks are {' and '.join(peaks)}."
        )


def _variants(rows: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    """Of ours, as far as they were not refused."""
    for name, row in rows.items():
        if name != "stock" and name not in DIFFERENCES and "refused" not in row:
            yield name, row


def _told(found: list[Any], beyond: list[str]) -> str:
    kept = len(found) - len(beyond)
    return f"{kept} of {len(found)}" + (f"; beyond it {', '.join(beyond)}" if beyond else "")
