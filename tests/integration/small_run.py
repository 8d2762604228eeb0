"""A whole veRL run, two steps long: trainer, Ray, FSDP, reference policy, vLLM, weight sync."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import torch

from pcr_plugin.demo.model import build_model
from pcr_plugin.demo.tokenizer import build_tokenizer
from pcr_plugin.verl_cpu.overrides import environment, hydra_overrides

REWARD = '''
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """The share of ASCII: a random model gets some, so the answers to a prompt differ."""
    return sum(character.isascii() for character in solution_str) / (1 + len(solution_str))
'''


@dataclass(frozen=True)
class Run:
    """What a run left behind."""

    status: int
    output: str
    steps: list[dict[str, Any]]

    def tracebacks(self) -> list[str]:
        """Where one begins, in all that was printed but by vLLM's server.

        Once the training is over, Ray ends the server and its engine in any order, and a server
        that outlives its engine by a moment says so with a traceback.
        """
        lines = self.output.splitlines()
        return [line for line in lines if "Traceback" in line and "vLLMServer" not in line]


def prepare(folder: Path) -> None:
    """Write a random checkpoint, prompts and a reward function.

    Args:
        folder: where to; `run` reads them there.
    """
    torch.manual_seed(0)
    prompts = [f"Write {number} words." for number in range(8)]
    tokenizer = build_tokenizer(prompts, size=260)
    tokenizer.save_pretrained(folder / "model")
    model = build_model(tokenizer, layers=2, width=64, heads=2, positions=128)
    model.save_pretrained(folder / "model")
    rows = [
        {
            "data_source": "small",
            "prompt": [{"role": "user", "content": prompt}],
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": index},
        }
        for index, prompt in enumerate(prompts)
    ]
    pandas.DataFrame(rows).to_parquet(folder / "prompts.parquet")
    (folder / "reward.py").write_text(REWARD)


def checkpoints(folder: Path) -> Path:
    """Where a run in this folder keeps its checkpoints, if its recipe saves any."""
    return folder / "checkpoints"


def overrides(folder: Path, steps: int, workers: int = 1) -> list[str]:
    """The recipe, without any key of ours: FSDP2, GRPO.

    Args:
        folder: what `prepare` wrote.
        steps: training steps.
        workers: processes to shard over.
    """
    return [
        *hydra_overrides(workers),
        "algorithm.adv_estimator=grpo",
        f"data.train_files={folder}/prompts.parquet",
        f"data.val_files={folder}/prompts.parquet",
        "data.train_batch_size=4",
        "data.max_prompt_length=64",
        "data.max_response_length=16",
        f"actor_rollout_ref.model.path={folder}/model",
        "actor_rollout_ref.actor.strategy=fsdp2",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "actor_rollout_ref.actor.kl_loss_type=k3+",
        "actor_rollout_ref.actor.kl_loss_coef=0.05",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
        "actor_rollout_ref.actor.optim.lr=1e-2",
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
        "actor_rollout_ref.rollout.max_model_len=96",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4",
        f"reward.custom_reward_function.path={folder}/reward.py",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        f"trainer.total_training_steps={steps}",
        'trainer.logger=["console","file"]',
        f"trainer.default_local_dir={checkpoints(folder)}",
    ]


def run(
    folder: Path,
    extra: list[str],
    *,
    steps: int = 2,
    workers: int = 1,
    recipe: list[str] | None = None,
    **variables: str,
) -> Run:
    """Run the real `main_ppo` and read veRL's own log.

    Args:
        folder: what `prepare` wrote.
        extra: further overrides, which replace those of the recipe.
        steps: training steps, from the first of all runs on.
        workers: processes to shard over.
        recipe: in place of `overrides`.
        **variables: further environment.

    Returns:
        Exit status, all output, and the steps of veRL's file logger.
    """
    log = folder / "steps.jsonl"
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "verl.trainer.main_ppo",
            *(recipe or overrides(folder, steps, workers)),
            *extra,
        ],
        cwd=folder,
        env=environment() | {"VERL_FILE_LOGGER_PATH": str(log)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=1500)
    finally:
        # Ray and vLLM are in the process group of the run; nothing of them may outlive it.
        stop_group(process.pid)
    lines = log.read_text().splitlines() if log.exists() else []
    return Run(process.returncode, output, [json.loads(line)["data"] for line in lines])


def stop_group(leader: int) -> None:
    """End every process of a run's group that is still there."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
