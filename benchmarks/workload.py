"""A model and a mini-batch for veRL's real actor engine, without Ray."""

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
)
from verl.utils import tensordict_utils
from verl.utils.device import get_device_name
from verl.workers.utils.padding import left_right_2_no_padding


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What an actor update works on.

    Args:
        width: hidden size of the model.
        layers: decoder layers.
        vocabulary: tokens.
        heads: of the queries.
        kv_heads: of keys and values.
        mlp: intermediate size of the MLP; 0 for 11/4 of the width.
        precision: what the passes compute in, `fp32` or `bf16`.
        sequences: per rank and mini-batch.
        prompt: tokens of every prompt.
        response: tokens of the longest response.
        shortest: share of them that the shortest response may have.
        micro_batches: per rank and mini-batch.
        zero_advantages: share of the sequences, rounded down, whose advantage is zero.
        checkpointing: recompute activations.
        strategy: `fsdp`, `fsdp2` or `megatron`.
        tensor_ranks: that share one replica of the model (`megatron`).
        sequence_ranks: that share the tokens of the same sequences (Ulysses), without padding.
        fsdp_size: ranks that share one replica of the model; -1 for all.
        lora_rank: of adapters on every linear layer; 0 trains the model itself.
        experts: of every MLP, of which a token sees two; 0 for a plain MLP.
        tied: input and output embeddings are one tensor.
        engine: fields of veRL's FSDPEngineConfig that differ from those of a run of `main_ppo`.
    """

    width: int = 512
    layers: int = 4
    vocabulary: int = 2048
    heads: int = 8
    kv_heads: int = 2
    mlp: int = 0
    precision: str = "fp32"
    sequences: int = 16
    prompt: int = 32
    response: int = 96
    shortest: float = 0.5
    micro_batches: int = 4
    zero_advantages: float = 0.0
    checkpointing: bool = False
    strategy: str = "fsdp2"
    tensor_ranks: int = 1
    sequence_ranks: int = 1
    fsdp_size: int = -1
    lora_rank: int = 0
    experts: int = 0
    tied: bool = False
    engine: tuple[tuple[str, Any], ...] = ()

    @property
    def sharing_ranks(self) -> int:
        """Ranks that have the same sequences."""
        return self.tensor_ranks * self.sequence_ranks


def save_model(workload: Workload, folder: Path) -> None:
    """Write a randomly initialised Qwen2 or Qwen2-MoE checkpoint that veRL can load.

    Args:
        workload: the model's size.
        folder: where to.
    """
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(_architecture(workload)).save_pretrained(folder)
    # veRL wants a tokenizer; the mini-batches have tokens already.
    words = {str(i): i for i in range(min(workload.vocabulary, 2048))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="0", eos_token="1"
    ).save_pretrained(folder)


def _architecture(workload: Workload) -> Qwen2Config | Qwen2MoeConfig:
    width = workload.mlp or workload.width * 11 // 4
    common = {
        "vocab_size": workload.vocabulary,
        "hidden_size": workload.width,
        "num_hidden_layers": workload.layers,
        "max_position_embeddings": max(2048, workload.prompt + workload.response),
        "num_attention_heads": workload.heads,
        "num_key_value_heads": workload.kv_heads,
        "tie_word_embeddings": workload.tied,
    }
    if not workload.experts:
        return Qwen2Config(intermediate_size=width, **common)
    # Two of them and the shared one are as wide as the plain MLP.
    return Qwen2MoeConfig(
        num_experts=workload.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=width // 4,
        shared_expert_intermediate_size=width // 2,
        **common,
    )


def packed(workload: Workload) -> bool:
    """Whether the model gets the sequences without padding, one after the other.

    Args:
        workload: Ulysses needs them so; on a GPU it is how they are used, if there is the kernel.
    """
    return workload.sequence_ranks > 1 or has_kernel()


def has_kernel() -> bool:
    """Whether this process computes attention on a GPU with flash-attn."""
    return get_device_name() == "cuda" and find_spec("flash_attn") is not None


def make_batch(workload: Workload, seed: int) -> TensorDict:
    """A mini-batch of random sequences of different lengths, in veRL's packed form.

    Args:
        workload: its size.
        seed: of the random numbers.
    """
    draw = torch.Generator().manual_seed(seed)
    rows, prompt, response = workload.sequences, workload.prompt, workload.response
    shortest = int(response * workload.shortest)
    lengths = torch.randint(shortest, response + 1, (rows, 1), generator=draw)
    answered = (torch.arange(response) < lengths).long()
    attention = torch.cat([torch.ones(rows, prompt, dtype=torch.long), answered], dim=1)
    ids = torch.randint(2, workload.vocabulary, attention.shape, generator=draw)
    level = -torch.log(torch.tensor(float(workload.vocabulary)))
    noise = partial(torch.randn, rows, response, generator=draw)
    advantages = noise()[:, :1].expand(rows, response).contiguous()
    advantages[torch.randperm(rows, generator=draw)[: int(workload.zero_advantages * rows)]] = 0.0
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
                "advantages": advantages,
            },
            batch_size=rows,
        )
    )
    tensordict_utils.assign_non_tensor(
        batch,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=rows // workload.micro_batches,
        global_batch_size=rows * (torch.distributed.get_world_size() // workload.sharing_ranks),
        calculate_entropy=False,
        temperature=1.0,
        use_remove_padding=packed(workload),
        use_fused_kernels=False,
    )
    return batch
