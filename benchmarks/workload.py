"""A model and a mini-batch for veRL's real actor engine, in one process, without Ray."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
)
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import left_right_2_no_padding

from pcr_plugin.verl import enable


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What an actor update works on.

    Args:
        width: hidden size of the model.
        layers: decoder layers.
        vocabulary: tokens.
        sequences: per rank and mini-batch.
        prompt: tokens of every prompt.
        response: tokens of the longest response.
        micro_batches: per rank and mini-batch.
        checkpointing: recompute activations.
        strategy: `fsdp` or `fsdp2`.
    """

    width: int = 512
    layers: int = 4
    vocabulary: int = 2048
    sequences: int = 16
    prompt: int = 32
    response: int = 96
    micro_batches: int = 4
    checkpointing: bool = False
    strategy: str = "fsdp2"


def save_model(workload: Workload, folder: Path) -> None:
    """Write a randomly initialised Qwen2 checkpoint that veRL can load.

    Args:
        workload: the model's size.
        folder: where to.
    """
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=workload.vocabulary,
        hidden_size=workload.width,
        intermediate_size=workload.width * 11 // 4,
        num_hidden_layers=workload.layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = {str(i): i for i in range(workload.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="0", eos_token="1"
    ).save_pretrained(folder)


def make_batch(workload: Workload, seed: int) -> TensorDict:
    """A mini-batch of random sequences of different lengths, in veRL's packed form.

    Args:
        workload: its size.
        seed: of the random numbers.
    """
    draw = torch.Generator().manual_seed(seed)
    rows, prompt, response = workload.sequences, workload.prompt, workload.response
    lengths = torch.randint(response // 2, response + 1, (rows, 1), generator=draw)
    answered = (torch.arange(response) < lengths).long()
    attention = torch.cat([torch.ones(rows, prompt, dtype=torch.long), answered], dim=1)
    ids = torch.randint(2, workload.vocabulary, attention.shape, generator=draw)
    level = -torch.log(torch.tensor(float(workload.vocabulary)))
    noise = partial(torch.randn, rows, response, generator=draw)
    batch = left_right_2_no_padding(
        TensorDict(
            {
                "input_ids": ids,
                "attention_mask": attention,
                "position_ids": (attention.cumsum(dim=1) - 1).clamp(min=0),
                "prompts": ids[:, :prompt],
                "responses": ids[:, prompt:],
                "response_mask": answered,
                "old_log_probs": level + 0.1 * noise(),
                "ref_log_prob": level + 0.3 * noise(),
                "advantages": noise()[:, :1].expand(rows, response).contiguous(),
            },
            batch_size=rows,
        )
    )
    tensordict_utils.assign_non_tensor(
        batch,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=rows // workload.micro_batches,
        global_batch_size=rows * torch.distributed.get_world_size(),
        calculate_entropy=False,
        temperature=1.0,
        use_remove_padding=False,
        use_fused_kernels=False,
    )
    return batch


def make_update(
    workload: Workload, model: Path, rule: str | None, settings: dict[str, Any]
) -> Callable[[TensorDict], dict[str, Any]]:
    """One actor update as veRL's worker runs it: zero, two or one passes, clip, step.

    Args:
        workload: the model's size.
        model: the saved checkpoint.
        rule: `update_rule`; `None` is veRL's stock engine class.
        settings: keys below `pcr`.

    Returns:
        A function from a mini-batch to the step's output.
    """
    precision = dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")
    fsdp = FSDPEngineConfig(
        strategy=workload.strategy, mixed_precision=precision, use_torch_compile=False
    )
    ranks = torch.distributed.get_world_size()
    actor = FSDPActorConfig(
        strategy=workload.strategy,
        rollout_n=1,
        ppo_mini_batch_size=workload.sequences * ranks,
        ppo_micro_batch_size_per_gpu=workload.sequences // workload.micro_batches,
        use_kl_loss=True,
        kl_loss_coef=0.01,
        kl_loss_type="k3+",
        fsdp_config=fsdp,
    )
    if rule is not None:
        enable(actor, rule, **settings)
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor.engine.strategy,
        model_config=HFModelConfig(
            path=str(model),
            use_remove_padding=False,
            override_config={"attn_implementation": "sdpa"},
            enable_gradient_checkpointing=workload.checkpointing,
        ),
        engine_config=actor.engine,
        optimizer_config=FSDPOptimizerConfig(lr=1e-6, total_training_steps=1000),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()

    def update(batch: TensorDict) -> dict[str, Any]:
        with engine.train_mode():
            output: dict[str, Any] = engine.train_batch(batch, partial(ppo_loss, config=actor))
        return output

    return update
