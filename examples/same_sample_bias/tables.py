"""What was measured, as the tables of docs/theory.md."""

from collections.abc import Iterable, Sequence

from examples.same_sample_bias import grpo, shared_scores
from examples.same_sample_bias.products import Estimate


def without_conflict(rows: Iterable[shared_scores.Row]) -> str:
    """p.s where E[p].E[s] = 0.

    Args:
        rows: one per size of the mini-batch.
    """
    head = ["sequences", "bias", "p.s", "across halves", "cos", "cos_unbiased", "p.s < 0"]
    return _table(
        head,
        [
            [
                str(row.sequences),
                f"{1e3 * row.expected:.2f}",
                *(_thousandths(value) for value in (row.product, row.crossed)),
                *(_pair(value) for value in (row.cosine, row.cosine_unbiased)),
                _percent(row.conflicts),
            ]
            for row in rows
        ],
    )


def of_training(rows: Iterable[grpo.Row]) -> str:
    """p.s along a run of GRPO.

    Args:
        rows: one per step.
    """
    head = ["step", "reward", "E[p].E[s]", "p.s", "same-sample part"]
    head += ["halves of whole prompts", "halves with every prompt", "p.s < 0"]
    return _table(
        head,
        [
            [
                *_name(row),
                *(_thousandths(value) for value in (row.true, row.product)),
                _percent(row.same_sample_share),
                *(_thousandths(value) for value in (row.by_prompts, row.by_answers)),
                _percent(row.conflicts),
            ]
            for row in rows
        ],
    )


def of_cosines(rows: Iterable[grpo.Row]) -> str:
    """Cosines along the same run.

    Args:
        rows: one per step.
    """
    head = ["step", "reward", "cosine of E[p] and E[s]", "cos", "cos_unbiased, whole prompts"]
    return _table(
        head,
        [
            [*_name(row), f"{row.cosine_true:.2f}", _pair(row.cosine), _pair(row.cosine_unbiased)]
            for row in rows
        ],
    )


def of_units(rows: Iterable[grpo.Row]) -> str:
    """V of several kinds of unit.

    Args:
        rows: one per step.
    """
    rows = list(rows)
    names = list(rows[0].units)
    head = ["step", "reward", "alpha"] + [f"unit: {name}" for name in names]
    return _table(
        head,
        [
            [*_name(row), f"{row.alpha:.2f}"]
            + [
                f"{unit.alpha:.2f} ({unit.plasticity:.2f}, {unit.stability:.2f})"
                for unit in row.units.values()
            ]
            for row in rows
        ],
    )


def _name(row: grpo.Row) -> list[str]:
    return [str(row.step), f"{row.reward:.2f}"]


def _thousandths(value: Estimate) -> str:
    return f"{1e3 * value.mean:.2f} ± {1e3 * value.error:.2f}"


def _pair(value: Estimate) -> str:
    return f"{value.mean:.3f} ± {value.error:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
