"""OpenRLHF's controller with made-up answers instead of vLLM's, and what it has seen at the end."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from openrlhf.trainer import ppo_trainer
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from tests.openrlhf.tokenizer import TOKENS

# `@ray.remote` wraps the class twice.
_Stock: Any = ppo_trainer.PPOTrainer.__ray_metadata__.modified_class.__ray_actor_class__
SEEN = "seen.json"
_LONGEST = 12


class MadeUpAnswers(SamplesGenerator):
    """The stock generator, whose requests are answered here instead of by an engine."""

    def _dispatch_prompts_to_vllm(
        self, prompts: Sequence[str], labels: Sequence[str], **_: Any
    ) -> list[Any]:
        return [
            ray.put([self._answer(prompt, label, each) for each in range(self._samples)])
            for prompt, label in zip(prompts, labels, strict=True)
        ]

    @property
    def _samples(self) -> int:
        number: int = self.args.rollout.n_samples_per_prompt
        return number

    def _answer(self, prompt: str, label: str, sample: int) -> dict[str, Any]:
        """Random tokens, and the share of even ones as reward; in the form of OpenRLHF's agents."""
        asked = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        seeded = torch.Generator().manual_seed(sum(asked) + 1000 * sample)
        length = int(torch.randint(4, _LONGEST + 1, (), generator=seeded))
        answer = torch.randint(2, TOKENS, (length,), generator=seeded).tolist()
        reward = sum(token % 2 == 0 for token in answer) / length
        return {
            "prompt": prompt,
            "label": label,
            "reward": reward,
            "scores": reward,
            "observation_tokens": asked + answer,
            "action_ranges": [(len(asked), len(asked) + length)],
            "rollout_log_probs": None,
        }


class Controller(_Stock):
    """The stock controller: prompts, experience, advantages, training, logs and checkpoints."""

    samples_generator: Any
    args: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        # It draws the order of the prompts, and OpenRLHF does not seed this process.
        torch.manual_seed(0)
        super().__init__(*arguments, **named)
        self.samples_generator.__class__ = MadeUpAnswers
        self._steps: list[dict[str, float]] = []

    def save_logs_and_checkpoints(self, step: int, status: Any, *rest: Any) -> None:
        """As stock; the status is kept."""
        numbers = {key: value for key, value in status.items() if key != "generated_samples"}
        self._steps.append({key: float(value) for key, value in numbers.items()})
        super().save_logs_and_checkpoints(step, status, *rest)

    def fit(self, global_step: int = 0) -> None:
        """As stock; then ask the actors what they are."""
        super().fit(global_step)
        handles = self.actor_model_group._actor_handlers
        actors = ray.get([handle.__ray_call__.remote(describe) for handle in handles])
        found = Path(self.args.ckpt.output_dir, SEEN)
        found.parent.mkdir(parents=True, exist_ok=True)
        found.write_text(json.dumps({"steps": self._steps, "actors": actors}))


def describe(actor: Any) -> dict[str, Any]:
    """In the actor's process: its classes, its stage and a digest of its whole weights."""
    import deepspeed

    engine = actor.actor.model
    named = sorted(engine.module.named_parameters())
    gathered = engine.zero_optimization_stage() == 3
    digest = hashlib.sha256()
    with deepspeed.zero.GatheredParameters([p for _, p in named], enabled=gathered):
        for _, parameter in named:
            digest.update(parameter.detach().float().numpy().tobytes())
    return {
        "actor": f"{type(actor).__module__}.{type(actor).__qualname__}",
        "trainer": type(actor.trainer).__name__,
        "strategy": type(actor.trainer.strategy).__name__,
        "stage": engine.zero_optimization_stage(),
        "ranks": torch.distributed.get_world_size(),
        "weights": digest.hexdigest(),
    }
