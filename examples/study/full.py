"""The full tier: `main_ppo` itself, with Ray, FSDP2 and vLLM, as in `pcr demo`."""

import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from examples.study.measure import Kept

_WINDOWS = "+trainer.study_windows"  # a key of our own, for the callback


def train(arguments: list[str], windows: int, folder: Path) -> None:
    """A whole run, with its log in `folder/log.jsonl` and its configuration in `folder/.hydra`.

    Args:
        arguments: Hydra overrides, see `examples.study.recipe`.
        windows: rows of held-out text that are measured.
        folder: for the files.

    Raises:
        RuntimeError: veRL failed; the message has the end of its output.
    """
    from pcr_plugin.demo import training

    own: dict[str, object] = {
        "actor_rollout_ref.actor.checkpoint.save_contents": "[hf_model]",
        "trainer.checkpoint_callback_class": "examples.study.full.MeasureKept",
        "trainer.v1.sampler.custom_sampler.path": "pkg://examples.study.sampler",
        "trainer.v1.sampler.custom_sampler.name": "WholeQuestions",
        _WINDOWS: windows,
        "hydra.run.dir": folder,
    }
    every = next(each for each in arguments if each.startswith("trainer.test_freq="))
    # veRL's processes run elsewhere and load the reward and the callback from here.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    saved = every.replace("test_freq", "save_freq")  # what is saved is measured
    changes = [saved, *(f"{key}={value}" for key, value in own.items())]
    training.train(arguments + changes, folder, lambda step, metrics: None)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # only the log is wanted


class MeasureKept(CheckpointCallback):
    """Measures every checkpoint, and keeps none, see `examples.study.measure`."""

    _started = False

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, **_: Any) -> None:
        """Log what the saved model has kept; the first time also what the start had.

        Args:
            trainer: veRL's.
            global_step: after which this is.
            checkpoint_dir: folder of the checkpoint.
        """
        if not self._started:
            self._started = True
            trainer.logger.log(data=self._measure(self._path), step=0)
        weights = Path(checkpoint_dir) / "actor" / "huggingface"
        trainer.logger.log(data=self._measure(weights), step=global_step)
        shutil.rmtree(checkpoint_dir)

    @property
    def _path(self) -> Path:
        return Path(self.config.actor_rollout_ref.model.path)

    @cached_property
    def _kept(self) -> Kept:
        tokenizer = AutoTokenizer.from_pretrained(self._path)
        return Kept(tokenizer, self.config.trainer.study_windows)

    def _measure(self, weights: Path) -> dict[str, float]:
        model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
        return self._kept.metrics(model.eval())
