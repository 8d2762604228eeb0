"""The page, made of the numbers in the file beside it."""

from typing import Any

PAGE = """# Which estimator of the variance

Alpha is a ratio of two variances, and every estimator of them has an error. Here the errors are
measured on real batches, against the exact value: the gradient of every sequence on its own, one
sequence at a time, and V of [design.md](design.md) with these as units (their gradients add up to
the batch's within {rest:.0e}).

Command: `{command}`

{date}, {machine}, {versions}. The demo's model after its supervised steps, trained by veRL's
FSDP2 engine with GRPO and the KL loss (beta {beta:g}, learning rate {rate:g}); batches of {rows}
sequences ({prompts} questions, {answers} answers to each, temperature 1), one optimizer step each.
{kept} of them are measured, every one before the policy is trained on it. Token-mean aggregation,
so sequences weigh by their tokens. Blocks: the {blocks} MLPs. Alpha is that of the preset `paper`,
over all blocks, whether they are in conflict or not.

{batches}
The last column: V with the {answers} answers to a question as one unit, over V with sequences as
units. GRPO subtracts the mean of a question's rewards, so its answers are not independent. veRL
takes them apart when it balances ranks and micro-batches, which is why sequences are the units.

## Errors

{errors}
Relative to the exact V of every block; means over blocks and batches. For `micro_batch` and
`split_half` over {orders} random orders of the rows; for `sequence` over {seeds} seeds of the
directions. The bias has its standard error behind it. The last row is no estimator: it is what
the exact V itself varies by when the batch's sequences are drawn again with replacement. An error
that is well below it is not worth a cost.

The estimates for `sequence` come from the estimator itself in the engine's passes. Those for the
other two are the same sums over the exact gradients' inner products, for many more orders than
there is time for. Whole updates with each estimator agree with that: mean V of the update against
the one expected for its order or its seed, at every number of micro-batches, differs by at most
{micro_difference:.0e} (`micro_batch`), {half_difference:.0e} (`split_half`) and
{sequence_difference:.0e} (`sequence`, whose V is the same for every number of micro-batches).

## Cost

{costs}
Seconds of one whole update (two passes, statistics, clip, step) and the share of
`actor/pcr/seconds` in it; medians of {timed} updates, interleaved. The model is {width} wide, so
that K directions are {directions} of a layer's inputs; a wider model does more work per probe, and
the share is smaller.

Memory: `micro_batch` keeps a number per block and micro-batch. `split_half` keeps one more gradient
of the scope for either objective, {halves:.1f} MB here. `sequence` keeps, with K probes and L
linear layers,

- until a micro-batch's backward pass, 4 K L bytes for every token of it, padding included;
- until the end of an objective's pass, 8 K^2 L bytes for every sequence of the rank;
- the directions, 4 K bytes for every input and output of a layer.

{memory}
None of this depends on the width but the directions, while what `split_half` keeps grows with the
number of parameters.

## What to take

- `sequence` has no bias that can be told from 0 (at most {sequence_sigmas:.1f} standard errors),
  and its error does not depend on micro-batches. With {best} probes V is off by {best_pla:.0%} (p)
  and {best_sta:.0%} (s), alpha by {best_alpha:.3f} on average; that is less than the
  {noise_pla:.0%} and {noise_sta:.0%} that the batch's own finite size does to V. Twice the probes
  halve it, for four times the numbers kept per sequence.
- `micro_batch` with {few} micro-batches is off by {few_pla:.0%} and {few_sta:.0%}, and alpha by
  more than 0.1 in {few_large:.0%} of the blocks; with {many} by {many_pla:.0%} and {many_sta:.0%},
  and {many_large:.0%}. It costs next to nothing, so with many micro-batches (all ranks' count) of
  about equal numbers of tokens it is the cheap choice; with few of them take `sequence`.
- `split_half` has two units however many micro-batches there are: V is off by {half_pla:.0%} and
  {half_sta:.0%}, and alpha by more than 0.1 in {half_large:.0%} of the blocks. It is for what the
  other two cannot read (experts or norms in the scope, Ulysses with `micro_batch`), and for
  `pcr/cos_unbiased`; give it a moving average (`pcr.variance.ema`).
"""


def page(report: dict[str, Any]) -> str:
    """Markdown.

    Args:
        report: conditions and results, as the JSON file has them.
    """
    settings, best = report["settings"], report["chosen_probes"]
    counts = settings["micro_batches"]
    few = _row(report, "micro_batch", min(counts))
    many = _row(report, "micro_batch", max(counts))
    half = _row(report, "split_half", max(counts))
    chosen = _row(report, "sequence", 0, best)
    probed = [row for row in report["estimates"] if row["estimator"] == "sequence"]
    sigmas = [abs(r[f"bias_{o}"]) / r[f"bias_{o}_error"] for r in probed for o in ("pla", "sta")]
    width = settings["start"]["width"]
    values = {
        **report,
        **settings,
        "rest": max(batch["rest"] for batch in report["batches"]),
        "versions": ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        "rate": settings["learning_rate"],
        "rows": settings["prompts"] * settings["answers"],
        "kept": len(report["batches"]),
        "blocks": len(report["batches"][0]["alpha"]),
        "batches": _batches(report),
        "errors": _errors(report),
        "costs": _costs(report),
        "memory": _memory(report),
        "timed": settings["repeats"] - 1,
        "width": width,
        "directions": ", ".join(f"1/{width // probes}" for probes in settings["probes"]),
        "halves": 2 * report["scope_bytes"] / 1e6,
        "micro_difference": report["differences"]["micro_batch"],
        "half_difference": report["differences"]["split_half"],
        "sequence_difference": report["differences"]["sequence"],
        "sequence_sigmas": max(sigmas),
        "best": best,
        "best_alpha": chosen["alpha_error"],
        "few": min(counts),
        "many": max(counts),
        "few_large": few["alpha_large"],
        "many_large": many["alpha_large"],
        "half_large": half["alpha_large"],
    }
    named = {"best": chosen, "few": few, "many": many, "half": half, "noise": report["resampled"]}
    for name, row in named.items():
        values |= {f"{name}_pla": row["sd_pla"], f"{name}_sta": row["sd_sta"]}
    return PAGE.format_map(values)


def _row(report: dict[str, Any], name: str, count: int, probes: int = 0) -> dict[str, Any]:
    [row] = [
        row
        for row in report["estimates"]
        if (row["estimator"], row["micro_batches"], row["probes"]) == (name, count, probes)
    ]
    found: dict[str, Any] = row
    return found


def _name(row: dict[str, Any]) -> str:
    return row["estimator"] + (f", {row['probes']} probes" if row["probes"] else "")


def _batches(report: dict[str, Any]) -> str:
    lines = [
        "| training steps | reward | questions without advantage | cosine of p and s "
        "| alpha, exact | questions as units: V of p, V of s |",
        "|---|---|---|---|---|---|",
    ]
    for batch in report["batches"]:
        ratios = [_range([row[i] for row in batch["questions_as_units"]]) for i in (0, 1)]
        lines.append(
            f"| {batch['step']} | {batch['reward']:.2f} | {batch['without_advantage']:.0%} "
            f"| {_range(batch['cosines'])} | {_range(batch['alpha'])} | {', '.join(ratios)} |"
        )
    return "\n".join(lines) + "\n"


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _errors(report: dict[str, Any]) -> str:
    lines = [
        "| estimator | micro-batches | V of p: bias | sd | V of s: bias | sd "
        "| alpha: sd | mean error | off by > 0.1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [(_name(row), str(row["micro_batches"] or "any"), row) for row in report["estimates"]]
    rows.append(("(the batch drawn again)", "", report["resampled"]))
    for name, count, row in rows:
        variances = " | ".join(
            f"{100 * row['bias_' + o]:+.1f} ± {100 * row['bias_' + o + '_error']:.1f} % "
            f"| {100 * row['sd_' + o]:.0f} %"
            for o in ("pla", "sta")
        )
        lines.append(
            f"| {name} | {count} | {variances} | {row['alpha_sd']:.3f} "
            f"| {row['alpha_error']:.3f} | {row['alpha_large']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def _costs(report: dict[str, Any]) -> str:
    counts = report["settings"]["micro_batches"]
    titles = [f"{count} micro-batches" for count in counts]
    lines = ["| estimator | " + " | ".join(titles) + " |", "|---" * (1 + len(counts)) + "|"]
    names = list(dict.fromkeys(_name(row) for row in report["costs"]))
    for name in names:
        cells = [
            f"{row['seconds']:.2f} s, {row['share']:.1%}"
            for row in report["costs"]
            if _name(row) == name
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _memory(report: dict[str, Any]) -> str:
    held = [f"{size / 1e6:.1f} MB with {probes}" for probes, size in report["memory"].items()]
    return (
        f"Measured here with {report['memory_micro_batches']} micro-batches, before the last "
        f"backward pass: {', '.join(held)} probes ({report['layers']} layers, "
        f"{report['settings']['prompts'] * report['settings']['answers']} sequences).\n"
    )
