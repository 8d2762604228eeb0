"""GRPO on a policy whose gradients are sums over few rows, so that thousands of mini-batches of
one policy can be looked at.

A token depends on the prompt and the token before it, through a network with one hidden layer.
The gradient of a mini-batch is then a weighted sum of the scores of all (prompt, token before,
token), and inner products of gradients follow from the Gramian of these scores.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

PROMPTS, TOKENS, LENGTH, HIDDEN = 16, 5, 6, 32
STATES = PROMPTS * (TOKENS + 1)
ROWS = STATES * TOKENS
# A reward of 1 for answers with at least this many of the prompt's own token.
NEEDED = 3
GROUPS, ANSWERS = 8, 8  # prompts of a mini-batch, answers to each
BETA, LEARNING_RATE = 0.05, 3e-3


class Rollouts(NamedTuple):
    """Answers.

    Attributes:
        rows: (R, GROUPS, ANSWERS, LENGTH) index of (prompt, token before, token).
        advantages: (R, GROUPS, ANSWERS) standardised within each group.
        rewards: the same shape.
    """

    rows: Tensor
    advantages: Tensor
    rewards: Tensor


class Policy(nn.Module):
    """Logits of the next token, float64.

    Args:
        seed: of the weights.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(PROMPTS + TOKENS + 1, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, TOKENS)
            ).double()
        prompts = torch.eye(PROMPTS).repeat_interleave(TOKENS + 1, dim=0)
        before = torch.eye(TOKENS + 1).repeat(PROMPTS, 1)
        self.inputs = torch.cat([prompts, before], dim=1).double()

    def log_probabilities(self) -> Tensor:
        """(ROWS,) of every token in every state."""
        logits: Tensor = self.layers(self.inputs)
        return logits.log_softmax(dim=1).flatten()

    @torch.no_grad()
    def scores(self) -> Tensor:
        """(ROWS, parameters) gradients of the log-probabilities.

        By hand: a row depends on one state alone, which autograd does not know.
        """
        first, _, last = self.layers
        hidden = torch.tanh(first(self.inputs))
        chances = last(hidden).softmax(dim=1)
        # (STATES, TOKENS, TOKENS) of the logits, then (STATES, TOKENS, HIDDEN).
        of_logits = torch.eye(TOKENS, dtype=torch.float64) - chances[:, None]
        of_hidden = of_logits @ last.weight * (1 - hidden.square())[:, None]
        found = [
            torch.einsum("sth,si->sthi", of_hidden, self.inputs),
            of_hidden,
            torch.einsum("stu,sh->stuh", of_logits, hidden),
            of_logits,
        ]
        return torch.cat([gradient.flatten(2) for gradient in found], dim=2).flatten(0, 1)


def roll_out(
    probabilities: Tensor, count: int, source: torch.Generator, among: int = PROMPTS
) -> Rollouts:
    """Answers of a policy to random prompts.

    Args:
        probabilities: (ROWS,).
        count: mini-batches.
        source: of the prompts and tokens.
        among: the first so many prompts.
    """
    prompts = torch.randint(among, (count, GROUPS, 1), generator=source).expand(-1, -1, ANSWERS)
    table = probabilities.view(STATES, TOKENS)
    before = torch.full_like(prompts, TOKENS)
    rows, right = [], torch.zeros_like(prompts)
    for _ in range(LENGTH):
        states = prompts * (TOKENS + 1) + before
        drawn = torch.multinomial(table[states.flatten()], 1, generator=source)
        before = drawn.view_as(prompts)
        rows.append(states * TOKENS + before)
        right = right + (before == prompts % TOKENS)
    rewards = (right >= NEEDED).double()
    centred = rewards - rewards.mean(dim=2, keepdim=True)
    advantages = centred / (rewards.std(dim=2, keepdim=True) + 1e-6)
    return Rollouts(torch.stack(rows, dim=3), advantages, rewards)


def coefficients(rollouts: Rollouts, drift: Tensor) -> tuple[Tensor, Tensor]:
    """Of every token's score in p and in s, on policy.

    Args:
        rollouts: answers.
        drift: (ROWS,) log pi - log pi_ref.

    Returns:
        Two (R, GROUPS, ANSWERS, LENGTH), with which the scores add up to the gradients of
        -A log pi and of the KL as `k2` and `k3+` differentiate it, both means over tokens.
    """
    tokens = GROUPS * ANSWERS * LENGTH
    of_p = -rollouts.advantages[..., None].expand_as(rollouts.rows) / tokens
    return of_p, drift[rollouts.rows] / tokens


def gathered(values: Tensor, rows: Tensor) -> Tensor:
    """(..., ROWS) sums of (..., k) values by (..., k) rows."""
    return values.new_zeros(*values.shape[:-1], ROWS).scatter_add(-1, rows, values)


def training(seed: int, steps: tuple[int, ...]) -> Iterator[tuple[int, Policy, Policy]]:
    """Train with Adam on p + beta s.

    Args:
        seed: of the weights and of the answers.
        steps: to stop at, ascending.

    Yields:
        The step, the policy and the reference.
    """
    policy, reference = Policy(seed), Policy(seed)
    start = reference.log_probabilities().detach()
    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE)
    source = torch.Generator().manual_seed(seed)
    for step in range(steps[-1] + 1):
        if step in steps:
            yield step, policy, reference
        values = policy.log_probabilities()
        current = values.detach()
        rollouts = roll_out(current.exp(), 1, source)
        of_p, of_s = coefficients(rollouts, current - start)
        weights = gathered((of_p + BETA * of_s).flatten(), rollouts.rows.flatten())
        optimizer.zero_grad()
        torch.autograd.backward((weights * values).sum())
        optimizer.step()
