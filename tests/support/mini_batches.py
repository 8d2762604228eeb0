"""Mini-batches of trajectories: lengths, policies and advantages differ from row to row."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tests.oracle.model import Architecture, Weights, next_token_log_probs
from tests.support.trajectory import Trajectory

# How far the sampling policy is from the current one: the standard deviation of the log-ratio.
# Most tokens stay inside the clipping interval, some leave it on either side.
OFF_POLICY = 0.15
GROUP = 3


def mini_batch(
    architecture: Architecture,
    policy: Weights,
    reference: Weights,
    *,
    rows: int,
    seed: int,
    temperature: float = 1.0,
) -> list[Trajectory]:
    """Prompts with a group of answers each, of lengths 3 to 14, slightly off-policy.

    Args:
        architecture: sizes of the model.
        policy: the weights that will be trained.
        reference: the weights of the reference policy.
        rows: number of trajectories.
        seed: of the generator.
        temperature: of the sampling distribution.

    Returns:
        The rows, with the group-standardised advantages of GRPO.
    """
    generator = torch.Generator().manual_seed(seed)
    trajectories: list[Trajectory] = []
    while len(trajectories) < rows:
        length = _length(2, 7, generator)
        prompt = torch.randint(1, architecture.vocabulary, (length,), generator=generator)
        rewards = torch.randn(GROUP, generator=generator)
        advantages = (rewards - rewards.mean()) / rewards.std()
        for advantage in advantages.tolist():
            length = _length(3, 15, generator)
            response = _sample(policy, architecture, prompt, length, temperature, generator)
            current = _log_probs(policy, architecture, prompt, response, temperature)
            noise = OFF_POLICY * torch.randn(len(response), generator=generator)
            # One token far enough off for the dual clip.
            noise[0] -= 1.6 * (advantage < -1)
            trajectories.append(
                Trajectory(
                    prompt=prompt,
                    response=response,
                    mask=torch.ones(len(response), dtype=torch.int64),
                    old_log_probs=current + noise,
                    ref_log_probs=_log_probs(
                        reference, architecture, prompt, response, temperature
                    ),
                    advantages=torch.full((len(response),), advantage),
                )
            )
    return trajectories[:rows]


def masked(trajectories: Sequence[Trajectory], rows: Sequence[int]) -> list[Trajectory]:
    """The same mini-batch with rows of which no token counts, and one with a gap."""
    result = list(trajectories)
    for row in rows:
        result[row] = replace(result[row], mask=torch.zeros_like(result[row].mask))
    gap = next(row for row in range(len(result)) if row not in rows)
    mask = result[gap].mask.clone()
    mask[1] = 0
    result[gap] = replace(result[gap], mask=mask)
    return result


def rejected(trajectories: Sequence[Trajectory], rows: Sequence[int]) -> list[Trajectory]:
    """The same mini-batch with rows that rollout correction has taken out of the losses."""
    result = list(trajectories)
    for row in rows:
        mask = result[row].mask
        result[row] = replace(result[row], mask=torch.zeros_like(mask), sampled=mask)
    return result


def _length(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _sample(
    weights: Weights,
    architecture: Architecture,
    prompt: Tensor,
    length: int,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    tokens = prompt
    for _ in range(length):
        table = next_token_log_probs(weights, tokens, architecture, temperature)
        chosen = torch.multinomial(table[-1].exp(), 1, generator=generator)
        tokens = torch.cat([tokens, chosen])
    return tokens[len(prompt) :]


def _log_probs(
    weights: Weights,
    architecture: Architecture,
    prompt: Tensor,
    response: Tensor,
    temperature: float,
) -> Tensor:
    exact = {name: w.double() for name, w in weights.items()}
    tokens = torch.cat([prompt, response])
    table = next_token_log_probs(exact, tokens, architecture, temperature)
    return table[len(prompt) - 1 : -1].gather(1, response[:, None]).squeeze(1).float()
