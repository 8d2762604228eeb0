"""The page, made of the numbers in the file beside it."""

from typing import Any

PAGE = """# Which estimator of the variance

Alpha is a ratio of two variances, and every estimator of them has an error. Here the errors are
measured on real batches, against the exact value: the gradient of every sequence on its own, one
sequence at a time, and V of [design.md](design.md) with these as units. These gradients add up to
the batch's within {rest:.0e}.

Command: `{command}`

{date}, {machine}, {versions}. The demo's model after its supervised steps, trained by veRL's FSDP2
engine with GRPO and the KL loss (beta {beta:g}, learning rate {rate:g}), one optimizer step per
batch of {rows} sequences ({prompts} questions, {answers} answers to each, temperature 1). The
measured batches ({kept} of them) are measured before the policy is trained on them. Token-mean
aggregation, so sequences weigh by their tokens. {blocks} blocks, the MLPs. Alpha is that of the
preset `paper`, of all blocks, in conflict or not.

{batches}
`redrawn`: the batch's sequences are drawn again with replacement, {draws} times, and the variance
of the gradients of the drawn batches is taken, without any formula. `by question`: the {answers}
answers to a question as one unit of the formula. Answers to one question are not independent; veRL
takes them apart when it balances ranks and micro-batches, so an estimator cannot have these units.

**What the formula measures.** With sequences as units V is not what the gradient varies by when
they weigh differently, as under token-mean: it is {formula_pla} times that (p) and {formula_sta}
times (s). Dividing ||g_i||^2 by w_i is right if what a sequence contributes per token
is the less noisy the longer it is. Here answers of {shortest:.0f} tokens stand beside answers of
{longest:.0f}, and it is not. N / (N - 1) sum_i ||g_i - w_i g||^2 assumes nothing of the kind, is
the same for equal weights, and is within {residual:.1%} of the redrawn variance in every block.
Micro-batches of many sequences weigh nearly the same, so for them the formula is nearly right. In
sequence-mean modes all sequences weigh the same.

## Errors

{errors}
Relative to the exact V of the formula, sequences as units; means over blocks and batches; the bias
with its standard error. `redrawn`: mean size of the bias against the redrawn variance, and for
alpha the mean distance from the alpha of these. For `micro_batch` and `split_half` over {orders}
random orders of the rows, for `sequence` over {seeds} seeds of the directions. The last row is no
estimator: it is what the exact V varies by from one drawn batch to the next, the noise that V has
because a batch is finite.

What is in the table for `sequence` comes from the estimator itself, in passes of the engine. For
the other two it is the same sums over inner products of the exact gradients, for many more orders
than there is time to run. Whole updates of the engine with each estimator agree with both: the
update's mean V differs from the one expected for its order, or its seed, by at most
{micro_difference:.0e} (`micro_batch`), {half_difference:.0e} (`split_half`) and
{sequence_difference:.0e} (`sequence`), relative, at every number of micro-batches.

## Cost

{costs}
Seconds of one whole update (both gradients, statistics, clip, step), and the share of
`actor/pcr/seconds` in it; medians of {timed} update(s) of each kind, interleaved. The model is only
{width} wide. What a probe costs per token grows with the width, what the layer costs with its
square, so with a wider model the share is smaller.

Memory: `micro_batch` keeps a number per block and micro-batch. `split_half` keeps one more gradient
of the scope for either objective, {halves:.1f} MB here. `sequence` keeps, with K probes and L
linear layers,

- 4 K L bytes for every token of a micro-batch, padding included, until its backward pass;
- 8 K^2 L bytes for every sequence of the rank, until the end of an objective's pass;
- 4 K bytes for every input and output feature of the layers: the directions.

{memory}
Only the directions grow with the width; what `split_half` keeps grows with the parameters.

## What to take

- `sequence` has no bias against the formula with sequences as units (at most {sequence_sigmas:.1f}
  standard errors), and micro-batches do not enter. With {best} probes V of p is off by
  {best_pla:.0%} and V of s by {best_sta:.0%} (standard deviations), where the finite batch alone
  makes {noise_pla:.0%} and {noise_sta:.0%}; alpha by {best_error:.3f} on average, and by more than
  0.1 in {best_large:.1%} of all cases. Together with the batch's own noise the standard deviation
  of alpha is {best_added:.0%} larger than without that error ({other_probes}). Under token-mean
  its V is the formula's, {formula_pla} and {formula_sta} times the redrawn variance, and its alpha
  is {best_from_redrawn:.3f} from that of the redrawn variances on average. Take it where all
  sequences weigh the same, and where there are fewer than {few} micro-batches.
- `micro_batch` costs next to nothing. The micro-batches of all ranks count. With {few} of them its
  standard deviation is {few_pla:.0%} and {few_sta:.0%}, with {many} {many_pla:.0%} and
  {many_sta:.0%}. Under token-mean the size of its bias depends on how many sequences are in
  one: against the redrawn variance {few_redrawn_pla:.0%} and {few_redrawn_sta:.0%} with {few_rows},
  {many_redrawn_pla:.0%} and {many_redrawn_sta:.0%} with {many_rows}, and its alpha is on average
  {few_from_redrawn:.3f} and {many_from_redrawn:.3f} from the redrawn one. Take it under token-mean
  with several sequences in a micro-batch, and wherever micro-batches are many.
- `split_half` has two units however many micro-batches there are: V is off by {half_pla:.0%} and
  {half_sta:.0%} (standard deviations). Take it for what the others cannot read (for example experts
  with `sequence`, Ulysses with `micro_batch`) and for `pcr/cos_unbiased`, and average V over steps
  (`pcr.variance.ema`).

The default is `micro_batch`: it costs next to nothing, reads every parameter, experts and norms
included, and under token-mean, veRL's default, it is the closest to what the gradient varies by as
long as several sequences are in a micro-batch. `sequence` is the one to choose where `micro_batch`
has two or three units or is refused (one micro-batch per rank on few ranks, Ulysses), and in
sequence-mean modes.
"""


_OBJECTIVES = ((0, "pla"), (1, "sta"))


def page(report: dict[str, Any]) -> str:
    """Markdown.

    Args:
        report: conditions and results, as the JSON file has them.
    """
    settings, best = report["settings"], report["chosen_probes"]
    counts = settings["micro_batches"]
    rows = {
        "few": _row(report, "micro_batch", min(counts)),
        "many": _row(report, "micro_batch", max(counts)),
        "half": _row(report, "split_half", max(counts)),
        "best": _row(report, "sequence", 0, best),
        "noise": report["resampled"],
    }
    values = {**report, **settings, **_conditions(report), "best": best}
    values |= {"few": min(counts), "many": max(counts)}
    values |= {f"{n}_rows": values["rows"] // values[n] for n in ("few", "many")}
    for name, row in rows.items():
        values |= {f"{name}_pla": row["sd_pla"], f"{name}_sta": row["sd_sta"]}
        values |= {f"{name}_error": row["alpha_error"], f"{name}_large": row["alpha_large"]}
        values[f"{name}_from_redrawn"] = row["alpha_redrawn"]
        for objective in ("pla", "sta"):
            values[f"{name}_redrawn_{objective}"] = row[f"redrawn_{objective}"]
    probed = [row for row in report["estimates"] if row["probes"]]
    others = [row for row in probed if row["probes"] != best]
    values["best_added"] = _added(rows["best"], report)
    values["other_probes"] = ", ".join(
        f"{_added(row, report):.0%} with {row['probes']} probes" for row in others
    )
    biases = [(row, f"bias_{objective}") for row in probed for objective in ("pla", "sta")]
    values["sequence_sigmas"] = max(abs(row[name]) / row[name + "_error"] for row, name in biases)
    return PAGE.format_map(values)


def _conditions(report: dict[str, Any]) -> dict[str, Any]:
    settings, differences = report["settings"], report["differences"]
    return {
        "rest": max(batch["rest"] for batch in report["batches"]),
        "versions": ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        "rate": settings["learning_rate"],
        "rows": settings["prompts"] * settings["answers"],
        "kept": len(report["batches"]),
        "shortest": min(batch["shortest"] for batch in report["batches"]),
        "longest": max(batch["longest"] for batch in report["batches"]),
        **_formula(report),
        "residual": max(
            abs(ratio - 1)
            for batch in report["batches"]
            for block in batch["residual"]
            for ratio in block
        ),
        "blocks": len(report["batches"][0]["alpha"]),
        "batches": _batches(report),
        "errors": _errors(report),
        "costs": _costs(report),
        "memory": _memory(report),
        "timed": settings["repeats"] - 1,
        "width": settings["start"]["width"],
        "halves": 2 * report["scope_bytes"] / 1e6,
        "micro_difference": differences["micro_batch"],
        "half_difference": differences["split_half"],
        "sequence_difference": differences["sequence"],
    }


def _formula(report: dict[str, Any]) -> dict[str, str]:
    """How many times the redrawn variance V of the formula is, over blocks and batches."""
    ratios = [block for batch in report["batches"] for block in batch["redrawn"]]
    return {f"formula_{name}": _range([row[i] for row in ratios]) for i, name in _OBJECTIVES}


def _added(row: dict[str, Any], report: dict[str, Any]) -> float:
    """By how much an estimator's noise makes that of alpha larger than the batch does alone."""
    ratio: float = row["alpha_sd"] / report["resampled"]["alpha_sd"]
    return (1 + ratio**2) ** 0.5 - 1


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
        "| training steps | reward | cosine of p and s | V of p: formula / redrawn | by question "
        "| V of s: formula / redrawn | by question | alpha, exact | redrawn | by question |",
        "|---" * 10 + "|",
    ]
    for batch in report["batches"]:
        ratios = [
            _range([row[objective] for row in batch[name]])
            for objective in (0, 1)
            for name in ("redrawn", "questions_as_units")
        ]
        names = ("alpha", "alpha_redrawn", "alpha_of_questions")
        cells = [_range(batch["cosines"]), *ratios, *(_range(batch[name]) for name in names)]
        lines.append(f"| {batch['step']} | {batch['reward']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _errors(report: dict[str, Any]) -> str:
    lines = [
        "| estimator | micro-batches | V of p: bias | sd | redrawn | V of s: bias | sd | redrawn "
        "| alpha: sd | mean error | off by > 0.1 | redrawn |",
        "|---" * 12 + "|",
    ]
    rows = [(_name(row), str(row["micro_batches"] or "any"), row) for row in report["estimates"]]
    rows.append(("(exact, the batch drawn again)", "", report["resampled"]))
    for name, count, row in rows:
        variances = " | ".join(
            f"{100 * row['bias_' + o]:+.1f} ± {100 * row['bias_' + o + '_error']:.1f} % "
            f"| {row['sd_' + o]:.0%} | {row['redrawn_' + o]:.0%}"
            for o in ("pla", "sta")
        )
        lines.append(
            f"| {name} | {count} | {variances} | {row['alpha_sd']:.3f} | {row['alpha_error']:.3f} "
            f"| {row['alpha_large']:.0%} | {row['alpha_redrawn']:.3f} |"
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
