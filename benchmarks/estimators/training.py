"""Some steps of GRPO with veRL's stock engine, and the batches that are kept on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer, PreTrainedModel, Qwen2ForCausalLM
from verl.workers.utils.losses import ppo_loss

from benchmarks.estimators.rollouts import Batch, roll_out
from benchmarks.estimators.settings import Settings
from pcr_plugin.demo import tasks
from tests.support.verl_batch import verl_batch
from tests.support.verl_engine import actor_config, build_engine


@dataclass(frozen=True)
class Kept:
    """A batch that is measured.

    Attributes:
        step: training steps before it.
        model: checkpoint of the policy that sampled it.
        batch: see there.
    """

    step: int
    model: Path
    batch: Batch


def train(settings: Settings, start: Path, folder: Path, say: Callable[[str], None]) -> list[Kept]:
    """Train until the last batch that is kept.

    Args:
        settings: see there.
        start: checkpoint of the policy at first, and of the reference.
        folder: for the checkpoints.
        say: shows a line of progress.

    Raises:
        RuntimeError: a batch to be kept says nothing about the surrogate.
    """
    torch.manual_seed(settings.start.seed)
    tokenizer = AutoTokenizer.from_pretrained(start)
    reference = Qwen2ForCausalLM.from_pretrained(start, dtype=torch.float32).eval()
    policy = Qwen2ForCausalLM.from_pretrained(start, dtype=torch.float32).eval()
    actor = new_actor(settings)
    engine = build_engine(
        actor, start, learning_rate=settings.learning_rate, use_remove_padding=False
    )
    # The demo's own questions.
    questions = tasks.entries((max(settings.kept) + 1) * settings.prompts, seed=2)
    kept = []
    for step in range(max(settings.kept) + 1):
        asked = list(islice(questions, settings.prompts))
        sizes = {"answers": settings.answers, "longest": settings.response}
        batch = roll_out(policy, reference, tokenizer, asked, **sizes)
        say(f"step {step}: reward {batch.rewards.mean():.3f}")
        if step in settings.kept:
            if batch.without_advantage == 1.0:
                raise RuntimeError(f"step {step}: equal rewards, so there is no surrogate gradient")
            policy.save_pretrained(folder / f"step{step}")
            kept.append(Kept(step, folder / f"step{step}", batch))
        with engine.train_mode():
            data = engine_batch(batch, range(settings.rows), min(settings.micro_batches))
            engine.train_batch(data, partial(ppo_loss, config=actor))
        _copy_weights(engine, policy)
    return kept


def new_actor(settings: Settings) -> Any:
    """The actor's configuration of the demo, with its token-mean aggregation.

    Args:
        settings: see there.
    """
    return actor_config(
        engine={},
        ppo_mini_batch_size=settings.rows,
        ppo_micro_batch_size_per_gpu=settings.rows // min(settings.micro_batches),
        kl_loss_type="k3+",
        kl_loss_coef=settings.beta,
    )


def engine_batch(batch: Batch, rows: Any, micro_batches: int) -> Any:
    """Some of a batch's rows as veRL's trainer hands them to an engine.

    Args:
        batch: see there.
        rows: which, in this order.
        micro_batches: of equally many rows.
    """
    return verl_batch(
        batch.trajectories,
        rows,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=len(rows) // micro_batches,
        global_batch_size=len(batch.trajectories),
        calculate_entropy=False,
        temperature=1.0,
        use_remove_padding=False,
        use_fused_kernels=False,
    )


def _copy_weights(engine: Any, policy: PreTrainedModel) -> None:
    weights = engine.module.state_dict()
    policy.load_state_dict(
        {n: w.full_tensor() if isinstance(w, DTensor) else w for n, w in weights.items()}
    )
