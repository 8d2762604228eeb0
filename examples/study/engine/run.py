"""Train: the steps of veRL's trainer, with its workers, losses, metrics and tracking."""

import os
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar
from verl.utils import tensordict_utils
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict
from verl.utils.tracking import Tracking

from examples.study.engine.batch import columns, metrics_of, with_log_probs
from examples.study.engine.sampling import Answer, Sampler, read_questions
from examples.study.engine.workers import start_workers
from examples.study.measure import Kept, divergence, validation_metrics

# Sampling of the measurements, the same for all runs of a seed and not that of the training.
_MEASURING = 1_000_003


def train(arguments: list[str], windows: int, folder: Path) -> None:
    """A whole run, with its log in `folder/log.jsonl` and its configuration beside it.

    Args:
        arguments: Hydra overrides, see `examples.study.recipe`.
        windows: rows of held-out text that are measured.
        folder: for the files.
    """
    torch.set_num_threads(1)
    disable_progress_bar()
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=arguments)
    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    os.environ["VERL_FILE_LOGGER_PATH"] = str(folder / "log.jsonl")
    _Run(config, windows).fit()


class _Run:
    def __init__(self, config: DictConfig, windows: int) -> None:
        self._config = config
        self._seed: int = config.data.seed
        torch.manual_seed(self._seed)
        self._actor, self._reference_worker = start_workers(config)
        path = config.actor_rollout_ref.model.path
        tokenizer = AutoTokenizer.from_pretrained(path)
        model, self._reference = (
            Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for _ in range(2)
        )
        self._sampler = Sampler(model, tokenizer, config.data.max_response_length)
        self._kept = Kept(tokenizer, windows)
        self._train_rows = read_questions(config.data.train_files)
        self._test_rows = read_questions(config.data.val_files)
        self._order = Random(self._seed)
        self._tracking = Tracking(
            config.trainer.project_name,
            config.trainer.experiment_name,
            default_backend=list(config.trainer.logger),
            config=OmegaConf.to_container(config, resolve=True),
        )

    def fit(self) -> None:
        steps, every = self._config.trainer.total_training_steps, self._config.trainer.test_freq
        self._tracking.log(self._measure(0), step=0)
        for step in range(1, steps + 1):
            began = time.perf_counter()
            metrics = self._step(step)
            metrics["timing_s/step"] = time.perf_counter() - began
            if step % every == 0 or step == steps:
                metrics |= self._measure(step)
            metrics["training/global_step"] = step
            self._tracking.log(metrics, step=step)

    def _step(self, step: int) -> dict[str, float]:
        config = self._config.actor_rollout_ref
        asked = self._order.sample(self._train_rows, self._config.data.train_batch_size)
        repeated = [row for row in asked for _ in range(config.rollout.n)]
        answers = self._sampler.ask(repeated, seed=self._seed * _MEASURING + step)
        data = columns(answers)
        metrics = metrics_of(data)
        metrics["critic/pass/mean"] = _mean([each.right for each in answers])
        workers = self._actor, self._reference_worker
        metrics |= with_log_probs(data, *workers, config.rollout.temperature)
        metrics |= self._update(data)
        weights, _ = self._actor.actor.engine.get_per_tensor_param()
        self._sampler.load(weights)
        return metrics

    def _update(self, data: TensorDict) -> dict[str, float]:
        config = self._config.actor_rollout_ref
        mini_batch = config.actor.ppo_mini_batch_size * config.rollout.n
        settings = {
            "calculate_entropy": config.actor.calculate_entropy,
            "global_batch_size": mini_batch,
            "mini_batch_size": mini_batch,
            "epochs": config.actor.ppo_epochs,
            "seed": config.actor.data_loader_seed,
            "dataloader_kwargs": {"shuffle": config.actor.shuffle},
            "temperature": config.rollout.temperature,
        }
        tensordict_utils.assign_non_tensor(data, **settings)
        output = self._actor.update_actor(data)
        found = reduce_metrics(rename_dict(output["metrics"], "actor/"))
        return {key: float(value) for key, value in found.items() if "perf/" not in key}

    def _measure(self, step: int) -> dict[str, float]:
        answers = self._sampler.ask(self._test_rows, seed=_MEASURING - step)
        found = validation_metrics(
            [each.row["data_source"] for each in answers],
            [f"{each.row['data_source']}{each.row['extra_info']['index']}" for each in answers],
            {"acc": [each.right for each in answers], "reward": [each.score for each in answers]},
        )
        found |= self._kept.metrics(self._sampler.model)
        found["study/kl_answers"] = self._divergence_of(answers)
        found["study/kl_text"] = float(
            divergence(self._sampler.model, self._reference, self._kept.text).mean()
        )
        return found

    def _divergence_of(self, answers: list[Answer]) -> float:
        ids = pad_sequence([torch.cat([a.prompt, a.response]) for a in answers], batch_first=True)
        found = divergence(self._sampler.model, self._reference, ids)
        return _mean(
            [
                float(row[len(each.prompt) - 1 :][: len(each.response)].mean())
                for row, each in zip(found, answers, strict=True)
            ]
        )


def _mean(values: list[Any]) -> float:
    return float(sum(values)) / len(values)
