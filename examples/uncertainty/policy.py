"""A Qwen2 with random weights that GRPO has moved away from its reference, and its gradients.

Prompts are random tokens, answers are sampled, and the reward is the share of even tokens.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

VOCABULARY, PROMPT, ANSWER, ANSWERS = 32, 4, 10, 4
BETA = 0.05


class Answers(NamedTuple):
    """Groups of answers, flat: those to one prompt are consecutive.

    Attributes:
        ids: (N, PROMPT + ANSWER) prompt and answer.
        advantages: (N,) standardised within each group.
        reward: mean.
    """

    ids: Tensor
    advantages: Tensor
    reward: float


def build(seed: int) -> Qwen2ForCausalLM:
    """Two layers of width 64, in float64: no machine's rounding picks another token.

    Args:
        seed: of the weights.
    """
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=PROMPT + ANSWER,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).double()


@torch.no_grad()
def answer(model: Qwen2ForCausalLM, prompts: int, source: torch.Generator) -> Answers:
    """Sample ANSWERS answers to each of some random prompts."""
    ids = torch.randint(VOCABULARY, (prompts, PROMPT), generator=source)
    ids = ids.repeat_interleave(ANSWERS, dim=0)
    for _ in range(ANSWER):
        chances = model(input_ids=ids).logits[:, -1].softmax(dim=-1)
        ids = torch.cat([ids, torch.multinomial(chances, 1, generator=source)], dim=1)
    rewards = (ids[:, PROMPT:] % 2 == 0).double().mean(dim=1).view(prompts, ANSWERS)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    advantages = centred / (rewards.std(dim=1, keepdim=True) + 1e-6)
    return Answers(ids, advantages.flatten(), rewards.mean().item())


def losses(
    model: Qwen2ForCausalLM, reference: Qwen2ForCausalLM, ids: Tensor, advantages: Tensor
) -> tuple[Tensor, Tensor]:
    """Surrogate and KL of some answers on policy, means over tokens; the KL as `k2` takes it."""
    current = _log_probabilities(model, ids)
    with torch.no_grad():
        anchor = _log_probabilities(reference, ids)
    ratio = (current - current.detach()).exp()
    return -(advantages[:, None] * ratio).mean(), 0.5 * (current - anchor).square().mean()


def _log_probabilities(model: Qwen2ForCausalLM, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids).logits[:, PROMPT - 1 : -1]
    chosen: Tensor = logits.log_softmax(dim=-1).gather(2, ids[:, PROMPT:, None])[:, :, 0]
    return chosen


def train(seed: int, steps: int, prompts: int) -> tuple[Qwen2ForCausalLM, Qwen2ForCausalLM]:
    """Some steps of stock GRPO.

    Args:
        seed: of weights and answers.
        steps: optimizer steps.
        prompts: of a step.

    Returns:
        The policy and the reference it started from.
    """
    model = build(seed)
    reference = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    source = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = answer(model, prompts, source)
        surrogate, kl = losses(model, reference, batch.ids, batch.advantages)
        optimizer.zero_grad()
        torch.autograd.backward(surrogate + BETA * kl)
        optimizer.step()
    return model, reference


def gradients(
    model: Qwen2ForCausalLM, reference: Qwen2ForCausalLM, batch: Answers
) -> dict[str, tuple[Tensor, Tensor]]:
    """Both gradients of every answer, one answer at a time, on each layer's MLP.

    Returns:
        Block name to p and s, (N, parameters) each, of an answer's mean over its tokens.
    """
    blocks = {
        f"layer {index}": list(layer.mlp.parameters())
        for index, layer in enumerate(model.model.layers)
    }
    found: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in blocks}
    for ids, advantage in zip(batch.ids, batch.advantages, strict=True):
        both = losses(model, reference, ids[None], advantage[None])
        for objective, loss in enumerate(both):
            wanted = [parameter for block in blocks.values() for parameter in block]
            parts = iter(torch.autograd.grad(loss, wanted, retain_graph=objective == 0))
            for name, block in blocks.items():
                found[name][objective].append(torch.cat([next(parts).flatten() for _ in block]))
    return {name: (torch.stack(p), torch.stack(s)) for name, (p, s) in found.items()}
