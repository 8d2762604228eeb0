"""GRPO on half of the prompts of a small policy, with weights from a rule; see `policy.py`.

The network is shared by all prompts, so what is learned for some changes the others: what is
forgotten is the divergence from the start on prompts that are never asked.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from examples.perfect_knowledge.knowledge import Knowledge, Rule
from examples.same_sample_bias.policy import (
    GROUPS,
    LEARNING_RATE,
    LENGTH,
    NEEDED,
    PROMPTS,
    TOKENS,
    Policy,
    coefficients,
    gathered,
    roll_out,
)

ASKED = PROMPTS // 2
# Mini-batches that "known" expectations are taken from, beside the one that is trained on.
_KNOWN_FROM = 64
_LAST = 20  # steps whose policies are measured, since a policy of one step is a noisy one


class Outcome(NamedTuple):
    """Of one run, means over its last policies.

    Attributes:
        reward: on the prompts that are asked.
        forgotten: KL(start, policy) in nats per token on all others.
    """

    reward: float
    forgotten: float


def train(rule: Rule, beta: float, seed: int, steps: int) -> Outcome:
    """One run.

    Args:
        rule: decides the weights of p and s.
        beta: the KL coefficient.
        seed: of the weights and of all answers; the same under every rule.
        steps: of Adam, one mini-batch each.
    """
    policy = Policy(seed)
    start = policy.log_probabilities().detach()
    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE)
    sources = [torch.Generator().manual_seed(2 * seed + which) for which in range(2)]
    outcomes = []
    for step in range(steps):
        p, s, weights = _decide(policy, start, rule, beta, sources)
        _put(policy, weights[0] * p + weights[1] * s)
        optimizer.step()
        if step >= steps - _LAST:
            outcomes.append(measure(policy, start))
    return Outcome(*torch.tensor(outcomes).mean(dim=0).tolist())


def _decide(
    policy: Policy, start: Tensor, rule: Rule, beta: float, sources: list[torch.Generator]
) -> tuple[Tensor, Tensor, Tensor]:
    """p and s of a mini-batch, (d,) each, and their two weights."""
    scores = policy.scores()
    current = policy.log_probabilities().detach()
    drift = current - start
    p, s = _gradients(scores, current, drift, 1, sources[0])
    # Drawn under every rule, so that all see the same answers while their policies are alike.
    expected_p, expected_s = (
        g.sum(dim=0) for g in _gradients(scores, current, drift, _KNOWN_FROM, sources[1])
    )
    weights = rule(Knowledge(p, s, expected_p, expected_s), beta)
    return p.sum(dim=0), s.sum(dim=0), weights


def _gradients(
    scores: Tensor, current: Tensor, drift: Tensor, count: int, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(GROUPS, d) parts of p and of s by their prompts, means over `count` mini-batches."""
    rollouts = roll_out(current.exp(), count, source, among=ASKED)
    of_p, of_s = (
        gathered(w.flatten(2), rollouts.rows.flatten(2)).mean(dim=0) @ scores
        for w in coefficients(rollouts, drift)
    )
    assert len(of_p) == GROUPS
    return of_p, of_s


def _put(policy: Policy, gradient: Tensor) -> None:
    sizes = [parameter.numel() for parameter in policy.parameters()]
    for parameter, part in zip(policy.parameters(), torch.split(gradient, sizes), strict=True):
        parameter.grad = part.view_as(parameter)


@torch.no_grad()
def measure(policy: Policy, start: Tensor) -> Outcome:
    """Without sampling.

    Args:
        policy: whose reward it is.
        start: (ROWS,) log-probabilities of the reference.
    """
    values = policy.log_probabilities()
    gaps = (start.exp() * (start - values)).view(PROMPTS, TOKENS + 1, TOKENS).sum(dim=2)
    rewards = _expected_rewards(values.exp().view(PROMPTS, TOKENS + 1, TOKENS))
    return Outcome(rewards[:ASKED].mean().item(), gaps[ASKED:].mean().item())


def _expected_rewards(chances: Tensor) -> Tensor:
    """(PROMPTS,) probabilities of a reward, from those of every token after every other."""
    prompts = torch.arange(PROMPTS)
    own = prompts % TOKENS
    # Of the token before and the number of own tokens so far; at first there is no token before.
    table = torch.zeros(PROMPTS, TOKENS + 1, LENGTH + 1, dtype=chances.dtype)
    table[:, TOKENS, 0] = 1
    for _ in range(LENGTH):
        after = torch.einsum("pbc,pbt->ptc", table, chances)
        counted = after[prompts, own]
        after[prompts, own] = torch.cat([torch.zeros_like(counted[:, :1]), counted[:, :-1]], dim=1)
        table = torch.cat([after, torch.zeros_like(table[:, :1])], dim=1)
    return table[:, :, NEEDED:].sum(dim=(1, 2))
