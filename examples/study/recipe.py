"""veRL's configuration of a run: Hydra overrides, the same keys in both tiers."""

from dataclasses import dataclass
from pathlib import Path

from examples.study.rules import RULES
from examples.study.start import Start
from pcr_plugin.verl_cpu.overrides import hydra_overrides

_ACTOR = "actor_rollout_ref.actor."
GRAD_CLIP = 1.0  # a norm above it is cut to it

SETTINGS: dict[str, object] = {
    "algorithm.adv_estimator": "grpo",
    "data.max_prompt_length": 96,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_type": "k3+",
    "actor_rollout_ref.actor.optim.clip_grad": GRAD_CLIP,
    "actor_rollout_ref.model.enable_gradient_checkpointing": False,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.max_model_len": 128,
    "actor_rollout_ref.rollout.val_kwargs.do_sample": True,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 1.0,
    "reward.custom_reward_function.path": "pkg://examples.study.reward",
    "trainer.project_name": "study",
    "trainer.logger": "[file]",
    "trainer.resume_mode": "disable",
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much a run trains and measures.

    Attributes:
        steps: of training.
        prompts: questions of a step.
        answers: to each of them.
        mini_batches: optimizer steps of a step.
        micro_batches: of every optimizer step; the units of the variance. Answers are in the order
            of their questions, so a unit is whole questions: `actor.shuffle` stays off.
        response: tokens of the longest answer.
        measured_every: steps between two measurements.
    """

    steps: int
    prompts: int = 32
    answers: int = 4
    mini_batches: int = 1
    micro_batches: int = 4
    response: int = 16
    measured_every: int = 8


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one run differs in from the others of its sizes.

    Attributes:
        rule: a name of `RULES`.
        beta: `kl_loss_coef`.
        rate: the optimizer's learning rate.
        scope: `pcr.scope`; says nothing under `stock`.
        prompts: questions of a step, if not those of the sizes.
        seed: of questions, order and sampling.
    """

    rule: str
    beta: float
    rate: float
    scope: str = "mlp"
    prompts: int | None = None
    seed: int = 0


def overrides(point: Point, sizes: Sizes, start: Start, folder: Path) -> list[str]:
    """Arguments of the run, for `main_ppo` or for Hydra's `compose`.

    Args:
        point: see there.
        sizes: see there.
        start: the model and the questions.
        folder: for what is written.
    """
    prompts = point.prompts or sizes.prompts
    rows = prompts * sizes.answers
    own: dict[str, object] = {
        "data.train_batch_size": prompts,
        "data.max_response_length": sizes.response,
        "data.train_files": start.train,
        "data.val_files": start.test,
        "data.seed": point.seed,
        _ACTOR + "data_loader_seed": point.seed,
        _ACTOR + "fsdp_config.seed": point.seed,
        _ACTOR + "optim.lr": point.rate,
        _ACTOR + "kl_loss_coef": point.beta,
        _ACTOR + "ppo_mini_batch_size": prompts // sizes.mini_batches,
        _ACTOR + "ppo_micro_batch_size_per_gpu": rows // sizes.mini_batches // sizes.micro_batches,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": rows,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": rows,
        "actor_rollout_ref.rollout.n": sizes.answers,
        "actor_rollout_ref.rollout.seed": point.seed,
        "actor_rollout_ref.model.path": start.model,
        "trainer.experiment_name": folder.name,
        "trainer.total_training_steps": sizes.steps,
        "trainer.test_freq": sizes.measured_every,
        "trainer.default_local_dir": folder / "checkpoints",
    }
    rule = dict(RULES[point.rule])
    if rule[_ACTOR + "update_rule"] != "null":
        rule |= {_ACTOR + "pcr.scope": point.scope, _ACTOR + "pcr.log_blocks": True}
    return hydra_overrides() + [f"{key}={value}" for key, value in (SETTINGS | own | rule).items()]
