"""What veRL's losses get: an actor's configuration, a micro-batch and a model's output."""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig

from tests.support.policy_losses import policy_loss

BETA = 0.07
PROMPTS, RESPONSES = (2, 3, 1, 2), (4, 1, 5, 3)


def actor_config(**changes: Any) -> FSDPActorConfig:
    values: dict[str, Any] = {
        "strategy": "fsdp2",
        "rollout_n": 2,
        "ppo_micro_batch_size_per_gpu": 2,
        "use_kl_loss": True,
        "kl_loss_coef": BETA,
        "kl_loss_type": "k3+",
        "entropy_coeff": 0.03,
    }
    changes["policy_loss"] = policy_loss(changes.pop("loss_mode", "vanilla"))
    return FSDPActorConfig(**(values | changes))


def jagged(rows: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def micro_batch(seed: int, *, dtype: torch.dtype, importance: bool = False) -> TensorDict:
    """Four sequences of unequal length; the last tokens of one of them are masked."""
    source = torch.Generator().manual_seed(seed)

    def per_token(scale: float, shift: float = 0.0) -> list[Tensor]:
        return [
            (scale * torch.randn(n, generator=source, dtype=torch.float64) + shift).to(dtype)
            for n in RESPONSES
        ]

    mask = [torch.ones(n, dtype=torch.int64) for n in RESPONSES]
    mask[2][-2:] = 0
    fields = {
        "prompts": jagged([torch.zeros(n, dtype=torch.int64) for n in PROMPTS]),
        "responses": jagged([torch.zeros(n, dtype=torch.int64) for n in RESPONSES]),
        "response_mask": jagged(mask),
        "old_log_probs": jagged(per_token(0.5, -1.0)),
        "ref_log_prob": jagged(per_token(0.5, -1.0)),
        "advantages": jagged(per_token(1.0)),
    }
    if importance:
        fields["rollout_is_weights"] = jagged([x.abs() + 0.5 for x in per_token(0.3)])
    data = TensorDict(fields, batch_size=len(PROMPTS))
    # Of a mini-batch that is larger than this micro-batch, on two ranks.
    tu.assign_non_tensor(data, dp_size=2, batch_num_tokens=40, global_batch_size=8)
    return data


def model_output(
    seed: int, *, dtype: torch.dtype, entropy: bool
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """What a model says of every token of prompt and response, and the leaves behind it."""
    source = torch.Generator().manual_seed(seed + 1000)
    lengths = [p + r for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    output, leaves = {}, []
    for name, scale, shift in (("log_probs", 0.5, -1.0), ("entropy", 0.1, 2.0)):
        flat = scale * torch.randn(sum(lengths), generator=source, dtype=torch.float64) + shift
        leaf = flat.to(dtype).requires_grad_()
        if name == "log_probs" or entropy:
            output[name] = torch.nested.nested_tensor_from_jagged(leaf, offsets)
            leaves.append(leaf)
    return output, leaves


def evaluate(
    loss: Any, seed: int, *, dtype: torch.dtype, entropy: bool, importance: bool = False
) -> tuple[float, list[Tensor], dict[str, Any]]:
    """Value, gradients with respect to the log-probabilities and the entropy, and metrics."""
    torch.manual_seed(seed)  # clip_cov draws which tokens to clip
    output, inputs = model_output(seed, dtype=dtype, entropy=entropy)
    data = micro_batch(seed, dtype=dtype, importance=importance)
    value, metrics = loss(model_output=output, data=data, dp_group=None)
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    filled = [
        torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)
    ]
    return value.item(), filled, metrics
