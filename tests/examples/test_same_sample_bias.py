"""The same-sample bias of p.s: its size, what removes it, and what does not."""

from pathlib import Path

import pytest
import torch

from examples.same_sample_bias import grpo, shared_scores, tables
from examples.same_sample_bias.policy import (
    ANSWERS,
    BETA,
    GROUPS,
    Policy,
    Rollouts,
    coefficients,
    gathered,
    roll_out,
)
from examples.same_sample_bias.products import Estimate, across, cosine, dot

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "theory.md").read_text()
STEPS = (50, 100)


@pytest.fixture(scope="module")
def of_scores() -> list[shared_scores.Row]:
    return list(shared_scores.rows(draws=1000))


@pytest.fixture(scope="module")
def of_training() -> list[grpo.Row]:
    return list(grpo.rows(STEPS, draws=1000))


def agrees(estimate: Estimate, truth: float, error: float = 0.0) -> bool:
    return abs(estimate.mean - truth) < 3 * (estimate.error**2 + error**2) ** 0.5


def test_without_a_true_conflict_the_product_is_negative(
    of_scores: list[shared_scores.Row],
) -> None:
    for row in of_scores:
        assert agrees(row.product, row.expected)
        assert row.product.mean < -10 * row.product.error
        assert row.cosine.mean < -10 * row.cosine.error
        assert row.conflicts > 0.75


def test_the_product_across_halves_is_not(of_scores: list[shared_scores.Row]) -> None:
    for row in of_scores:
        assert agrees(row.crossed, 0.0)
        assert 0.4 < row.conflicts_crossed < 0.6
        # The norms below it are noisy, and of the same samples: near 0, not exactly.
        assert abs(row.cosine_unbiased.mean) < 0.1 * abs(row.cosine.mean)


def test_in_grpo_only_halves_that_share_no_prompt_are_free_of_it(
    of_training: list[grpo.Row],
) -> None:
    for row in of_training:
        assert agrees(row.by_prompts, row.true.mean, row.true.error)
        assert not agrees(row.product, row.true.mean, row.true.error)
        assert not agrees(row.by_answers, row.true.mean, row.true.error)
        assert 0.2 < row.same_sample_share < 0.9


def test_units_that_share_prompts_see_too_little_variance(of_training: list[grpo.Row]) -> None:
    """So much less of s than of p here that alpha comes out too large."""
    for row in of_training:
        prompts, answer, mixed = row.units.values()
        # Over 8 prompts in 1000 mini-batches, of gradients in few directions.
        assert (prompts.plasticity, prompts.stability) == pytest.approx((1, 1), abs=0.15)
        assert prompts.alpha == pytest.approx(row.alpha, abs=0.05)
        for unit in (answer, mixed):
            assert max(unit.plasticity, unit.stability) < 0.8
            assert unit.alpha > row.alpha + 0.05


@pytest.mark.parametrize("kind", ["without_conflict", "of_training", "of_cosines", "of_units"])
def test_the_page_has_the_numbers_of_the_command(
    kind: str, of_scores: list[shared_scores.Row], of_training: list[grpo.Row]
) -> None:
    """Within the standard errors of both where there are any; otherwise as printed, nearly."""
    rows = of_scores if kind == "without_conflict" else of_training
    header, _, *fresh = getattr(tables, kind)(rows).splitlines()
    table = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()
    shown = {line.split("|")[1]: line for line in table}
    for line in fresh:
        for ours, theirs in zip(line.split("|"), shown[line.split("|")[1]].split("|"), strict=True):
            words = [
                cell.replace("(", "").replace(")", "").replace(",", "") for cell in (ours, theirs)
            ]
            numbers = [[float(w) for w in cell.split() if w not in ("±", "%")] for cell in words]
            if "±" in ours:
                (mean, error), (expected, other) = numbers
                assert abs(mean - expected) < 4 * (error**2 + other**2) ** 0.5, (line, theirs)
            elif "%" in ours:
                assert numbers[0] == pytest.approx(numbers[1], abs=12), (line, theirs)
            else:
                assert numbers[0] == pytest.approx(numbers[1], abs=0.15), (line, theirs)


def test_the_gradients_are_those_of_the_losses() -> None:
    """Coefficients times scores, against autograd through -A log pi and the square of k2."""
    policy, reference = Policy(0), Policy(1)
    source = torch.Generator().manual_seed(0)
    current = policy.log_probabilities()
    start = reference.log_probabilities().detach()
    rollouts: Rollouts = roll_out(current.detach().exp(), 1, source)
    surrogate = -(rollouts.advantages[..., None] * current[rollouts.rows]).mean()
    kl = 0.5 * (current - start)[rollouts.rows].square().mean()
    drift = (current - start).detach()
    scores = policy.scores()
    for loss, weights in zip((surrogate, kl), coefficients(rollouts, drift), strict=True):
        expected = torch.autograd.grad(loss, list(policy.parameters()), retain_graph=True)
        found = gathered(weights.flatten(), rollouts.rows.flatten()) @ scores
        torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]))
    assert rollouts.rows.shape[1:3] == (GROUPS, ANSWERS) and BETA > 0


def test_scores_are_what_autograd_finds() -> None:
    policy = Policy(2)
    for row in (0, 7, len(policy.scores()) - 1):
        expected = torch.autograd.grad(policy.log_probabilities()[row], list(policy.parameters()))
        torch.testing.assert_close(policy.scores()[row], torch.cat([g.flatten() for g in expected]))


def test_products_through_the_metric() -> None:
    """Coefficients of rows, against the vectors that they stand for."""
    source = torch.Generator().manual_seed(1)
    rows = torch.randn(7, 5, generator=source, dtype=torch.float64)
    halves = torch.randn(2, 3, 2, 7, generator=source, dtype=torch.float64)
    p, s = halves @ rows
    metric = rows @ rows.T
    expected = ((2 * p[:, 0]) * (2 * s[:, 1]) + (2 * p[:, 1]) * (2 * s[:, 0])).sum(dim=1) / 2
    torch.testing.assert_close(across(*halves, metric), expected)
    whole_p, whole_s = halves.sum(dim=2)
    product = dot(whole_p, whole_s, metric)
    expected = torch.cosine_similarity(p.sum(dim=1), s.sum(dim=1), dim=1)
    torch.testing.assert_close(cosine(product, whole_p, whole_s, metric), expected)
