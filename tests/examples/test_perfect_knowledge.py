"""What rules would gain from knowing: the numbers they are given, and the page's table."""

import math
from pathlib import Path

import pytest
import torch

from examples.perfect_knowledge.__main__ import BETAS, STOCK_BETAS, run, table
from examples.perfect_knowledge.knowledge import RULES, STOCK, Knowledge
from examples.perfect_knowledge.training import ASKED, measure, train
from examples.same_sample_bias.policy import Policy, roll_out

PAGE = (Path(__file__).parents[2] / "docs" / "theory.md").read_text()
GROUPS, WIDTH = 8, 40


def drawn(count: int, correlation: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """p and s of many mini-batches, (count, GROUPS, WIDTH), and their (2, WIDTH) means."""
    source = torch.Generator().manual_seed(0)
    means = torch.randn(2, WIDTH, generator=source, dtype=torch.float64) / WIDTH**0.5
    noise = torch.randn(2, count, GROUPS, WIDTH, generator=source, dtype=torch.float64)
    of_s = correlation * noise[0] + (1 - correlation**2) ** 0.5 * noise[1]
    return (means[0] + noise[0]) / GROUPS, (means[1] + of_s) / GROUPS, means


def test_taking_the_noise_out_leaves_the_products_of_the_means() -> None:
    p, s, means = drawn(4000, correlation=-0.5)
    known = [Knowledge(*pair, *means) for pair in zip(p, s, strict=True)]
    unbiased = torch.cat([each.unbiased_gramian() for each in known]).mean(dim=0)
    biased = torch.cat([each.gramian() for each in known]).mean(dim=0)
    expected = known[0].known_gramian()[0]
    assert unbiased[0, 1].item() == pytest.approx(expected[0, 1].item(), abs=0.06)
    assert abs(biased[0, 1] - expected[0, 1]) > 2
    variances = torch.cat([each.variances() for each in known]).mean(dim=0)
    torch.testing.assert_close(
        variances, torch.full_like(variances, WIDTH / GROUPS), rtol=0.02, atol=0
    )


def test_rules_are_those_of_the_package() -> None:
    p = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    s = torch.tensor([[-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    known = Knowledge(p, s, p.sum(dim=0), -s.sum(dim=0))
    # p = (2, 2), s = (-2, 0): all of the first coordinate is projected away.
    assert RULES[STOCK](known, 0.1).tolist() == [1.0, 0.1]
    assert RULES["alpha 1"](known, 0.1).tolist() == [1.0, 1.0]
    assert RULES["alpha 1, expectations known"](known, 0.1).tolist() == [1.0, 0.1]  # no conflict
    # V_sta is 0.
    assert RULES["beta"](known, 0.1).tolist() == [1.0, 1.0]


def test_the_reward_is_the_one_that_is_sampled() -> None:
    policy = Policy(3)
    values = policy.log_probabilities().detach()
    source = torch.Generator().manual_seed(0)
    rewards = roll_out(values.exp(), 2000, source, among=ASKED).rewards
    found = measure(policy, values)
    # Answers to one prompt share it, so that the prompts are what varies.
    error = rewards.mean(dim=2).std().item() / math.sqrt(rewards.mean(dim=2).numel())
    assert found.reward == pytest.approx(rewards.mean().item(), abs=4 * error)
    assert found.forgotten == pytest.approx(0, abs=1e-12)


def test_training_learns_and_forgets_and_more_kl_does_less_of_both() -> None:
    weak, strong = (train(RULES[STOCK], beta, 0, steps=60) for beta in (0.01, 1.0))
    start = measure(Policy(0), Policy(0).log_probabilities().detach())
    assert weak.reward > strong.reward > start.reward
    assert weak.forgotten > strong.forgotten > 0


def test_the_page_has_a_row_for_every_run() -> None:
    header, _, *lines = table(run((0.05, 1.0), (0.1,), range(1), steps=25)).splitlines()
    shown = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()[2:]
    names = [tuple(line.split(" | ")[:2]) for line in shown]
    assert {line.split(" | ")[0] for line in lines} == {name for name, _ in names}
    expected = [
        (f"| {rule}", f"{beta:g}")
        for rule in RULES
        for beta in (STOCK_BETAS if rule == STOCK else BETAS)
    ]
    assert names == expected
