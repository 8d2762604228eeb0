"""The demo's veRL recipe: Hydra overrides for `python -m verl.trainer.main_ppo`."""

from pathlib import Path

from pcr_plugin.demo.start import Start
from pcr_plugin.verl_cpu.overrides import hydra_overrides

PROMPTS = 48  # questions of a step
ANSWERS = 4  # to each question
MINI_BATCHES = 2  # optimizer steps of a step
MICRO_BATCHES = 4  # units of the variance estimate in a mini-batch

SETTINGS: dict[str, object] = {
    "algorithm.adv_estimator": "grpo",
    "data.train_batch_size": PROMPTS,
    "data.max_prompt_length": 64,
    "data.max_response_length": 24,
    "data.seed": 0,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.optim.lr": 2e-4,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_type": "k3+",
    "actor_rollout_ref.actor.kl_loss_coef": 0.05,
    "actor_rollout_ref.actor.ppo_mini_batch_size": PROMPTS // MINI_BATCHES,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": (
        PROMPTS * ANSWERS // MINI_BATCHES // MICRO_BATCHES
    ),
    "actor_rollout_ref.model.enable_gradient_checkpointing": False,
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": PROMPTS * ANSWERS,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": PROMPTS * ANSWERS,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.n": ANSWERS,
    "actor_rollout_ref.rollout.max_model_len": 96,
    "actor_rollout_ref.actor.checkpoint.save_contents": "[hf_model]",
    "reward.custom_reward_function.path": "pkg://pcr_plugin.demo.reward",
    "trainer.checkpoint_callback_class": "pcr_plugin.demo.callback.MeasurePerplexity",
    "trainer.v1.sampler.custom_sampler.path": "pkg://pcr_plugin.demo.sampler",
    "trainer.v1.sampler.custom_sampler.name": "PromptSampler",
    "trainer.logger": "[file]",
    "trainer.resume_mode": "disable",
    "trainer.val_before_train": False,
    "trainer.test_freq": -1,
    "trainer.save_freq": 4,
}


def overrides(start: Start, rule: str, steps: int, folder: Path) -> list[str]:
    """Arguments of the run.

    Args:
        start: the model and the prompts.
        rule: value of `update_rule`; `null` is the stock update.
        steps: of training.
        folder: for what is written.
    """
    own: dict[str, object] = {
        "actor_rollout_ref.actor.update_rule": rule,
        "actor_rollout_ref.model.path": start.model,
        "data.train_files": start.prompts,
        "data.val_files": start.prompts,
        "trainer.total_training_steps": steps,
        "trainer.default_local_dir": folder / "checkpoints",
        "hydra.run.dir": folder,
        "hydra.output_subdir": "null",
    }
    if rule != "null":
        own["actor_rollout_ref.actor.pcr.log_blocks"] = True
    return hydra_overrides() + [f"{key}={value}" for key, value in (SETTINGS | own).items()]
