"""The page that shows what was measured, made of the numbers in the file beside it."""

from collections.abc import Sequence
from typing import Any

Results = dict[str, dict[str, float]]

PAGE = """# What it costs

Seconds of one actor update (`train_batch` of veRL's real engine: zero, passes, clip, step) of
stock veRL and of each rule, interleaved. Two gradients by two whole passes cost
twice the stock update; the limit for exact separate gradients is lower
(a shared forward pass is not built yet).

Command: `{command}`

{date}, {machine}, {versions}. {ranks} rank(s); medians of {repeats} updates of each kind (quartiles
in brackets); a Qwen2 of width {width}, {layers} layers, vocabulary {vocabulary}, float32, random
weights; {sequences} sequences of {prompt} + at most {response} tokens in {micro_batches}
micro-batches per rank; activation checkpointing {checkpointing}.

{notes}{tables}
The last column is what `actor/pcr/seconds` measures: gradient norms in the hooks, inner products,
the all-reduce, the rule and the combination, as a share of the update. It depends on the number of
parameters in the scope and of micro-batches, not on the number of tokens, which the passes depend
on: with more tokens in a mini-batch it is less. Of several ranks it is the first one's, and the
all-reduce has it wait for the slowest.

{observed}Not measured here: GPUs, a network between ranks, memory.
{links}"""

# A part of a layout's name, and what it means.
NOTES = {
    "lora": "`lora`: adapters of rank 32 on every linear layer, the only ones that are trained.",
    "experts": "`experts`: eight experts in every MLP, of which a token sees two, and a shared "
    "one, as fused tensors.",
    "tied": "`tied`: input and output embeddings are one tensor.",
    "offload": "`offload`: `param_offload` and `optimizer_offload`; `offload_policy`: FSDP2's own. "
    "On a CPU both sides are the same memory.",
    "ulysses": "`ulysses`: two ranks share the tokens of the same sequences, so the numbers of "
    "sequences are those of both; torch's attention is in place of the flash-attention kernel.",
    "hybrid": "`hybrid`: two replicas of two shards.",
    "megatron": "Megatron-core with its local layers and what the tests put in place of a GPU.",
}


_OBSERVED = """`observe` measures with two extra passes and then runs the stock update; between
measurements (`pcr.observe_every`, 10 by default) its step is the stock step.

"""


def table(results: Results) -> str:
    """Markdown rows.

    Args:
        results: per variant what `summary` gives; `stock` is what the others are compared with.
    """
    stock = results["stock"]["median"]
    lines = [
        "| rule | seconds, median (quartiles) | against stock | statistics and combine |",
        "|---|---|---|---|",
    ]
    for name, row in results.items():
        spread = f"{row['median']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
        share = f"{100 * row['share']:.2f} %" if row["share"] else ""
        lines.append(f"| {name} | {spread} | {row['median'] / stock:.2f} | {share} |")
    return "\n".join(lines) + "\n"


def page(report: dict[str, Any], others: Sequence[str] = ()) -> str:
    """The markdown page for a report, so that its numbers cannot drift from the file's.

    Args:
        report: conditions and results, as the JSON file has them.
        others: pages of the same kind, beside this one.
    """
    workload = report["workload"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    results = report["results"]
    tables = "\n".join(f"`{name}`:\n\n{table(found)}" for name, found in results.items())
    notes = [text for part, text in NOTES.items() if any(part in name for name in results)]
    links = ", ".join(f"[{other}]({other})" for other in others)
    values = {**report, **workload, "versions": versions, "tables": tables}
    values["notes"] = "".join(f"{text}\n\n" for text in notes)
    values["observed"] = _OBSERVED if "observe" in tables else ""
    values["links"] = f"\nOther layouts: {links}.\n" if links else ""
    values["checkpointing"] = "on" if workload["checkpointing"] else "off"
    return PAGE.format_map(values)
