"""veRL's checkpoint hook: measures what the actor has forgotten, whenever it is saved."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from pcr_plugin.demo.perplexity import perplexity
from pcr_plugin.demo.start import held_out_windows

METRIC = "demo/perplexity"


class MeasurePerplexity(CheckpointCallback):
    """Logs the held-out perplexity through veRL's own tracking.

    Named by `trainer.checkpoint_callback_class`; needs `hf_model` among the actor's
    `checkpoint.save_contents`.
    """

    def on_save(
        self,
        trainer: Any,
        global_step: int,
        checkpoint_dir: str,
        async_save: bool = False,
        **_: Any,
    ) -> None:
        """Measure the checkpoint; only the newest one is kept."""
        weights = Path(checkpoint_dir) / "actor" / "huggingface"
        tokenizer = AutoTokenizer.from_pretrained(self.config.actor_rollout_ref.model.path)
        model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
        result = perplexity(model, held_out_windows(tokenizer))
        trainer.logger.log(data={METRIC: result}, step=global_step)
        for other in Path(checkpoint_dir).parent.glob("global_step_*"):
            if other.name != Path(checkpoint_dir).name:
                shutil.rmtree(other)
