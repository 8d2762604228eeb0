"""Actor configurations that PCR cannot be right for; each error names the remedy."""

import logging
from typing import Any

from pcr_plugin.config import UpdateRule
from pcr_plugin.config.checks import reject

logger = logging.getLogger(__name__)

# Straight-through k2: the value of the estimator, the gradient of the KL.
GOOD_KL = ("k1+", "abs+", "k2", "mse", "k2+", "mse+", "k3+", "low_var_kl+")
BIASED_KL = ("low_var_kl", "k3")
_ACTOR = "actor_rollout_ref.actor"
# veRL's spellings of the type that needs a loss scaler.
_FLOAT16 = ("fp16", "float16", "16", "torch.float16")


def check_actor(actor: Any, rule: UpdateRule, recipe: dict[str, Any]) -> None:
    """Refuse what no engine of ours can train rightly, before any worker starts.

    Args:
        actor: veRL's actor configuration.
        rule: the resolved rule.
        recipe: facts from outside the actor's block: `use_kl_in_reward`, `distillation`.

    Raises:
        ValueError: names key, value and remedy.
    """
    _check_kl(actor, recipe)
    if recipe.get("distillation"):
        reject("distillation.enabled", True, "its loss has no separate KL term; switch it off")
    for key in ("use_fused_kernels", "use_prefix_grouper"):
        if getattr(actor, key, False):
            reject(f"{_ACTOR}.{key}", True, "not shown to be right; set it to false")
    # Hydra delivers this block as a dictionary, code as a dataclass; both have `get`.
    if (actor.qat or {}).get("enable", False):
        reject(f"{_ACTOR}.qat.enable", True, "quantisation-aware training is not supported")


def _check_kl(actor: Any, recipe: dict[str, Any]) -> None:
    if not actor.use_kl_loss:
        reject(
            f"{_ACTOR}.use_kl_loss",
            actor.use_kl_loss,
            "the stability gradient is the gradient of the KL loss; set it to True",
        )
    if recipe.get("use_kl_in_reward"):
        reject(
            "algorithm.use_kl_in_reward",
            True,
            "the KL would count in both gradients; set it to False and keep use_kl_loss",
        )
    beta = actor.kl_loss_coef
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta < float("inf"):
        reject(f"{_ACTOR}.kl_loss_coef", beta, "a number of at least 0")
    kind = actor.kl_loss_type
    if kind in BIASED_KL:
        logger.warning(
            "%s.kl_loss_type=%s: its gradient is not the gradient of the KL; k3+ has the same "
            "value and the right gradient.",
            _ACTOR,
            kind,
        )
    elif kind not in GOOD_KL:
        reject(
            f"{_ACTOR}.kl_loss_type",
            kind,
            f"one of {', '.join((*GOOD_KL, *BIASED_KL))} (k3+ if in doubt); the gradient of "
            "kl, k1 and abs is not that of a KL",
        )


def check_fsdp(engine: Any) -> None:
    """Refuse FSDP settings that this version's engine does not cover.

    Args:
        engine: veRL's FSDPEngineConfig.

    Raises:
        ValueError: names key, value and remedy.
    """
    prefix = f"{_ACTOR}.fsdp_config"
    if engine.ulysses_sequence_parallel_size > 1:
        reject(
            f"{_ACTOR}.ulysses_sequence_parallel_size",
            engine.ulysses_sequence_parallel_size,
            "a rank then sees a slice of each sequence, and this version has no estimator for "
            "it; set it to 1",
        )
    if engine.offload_policy:
        reject(f"{prefix}.offload_policy", True, "not built yet; use param_offload=True")
    if (engine.qat or {}).get("enable", False):
        reject(f"{prefix}.qat.enable", True, "quantisation-aware training is not supported")
    half = (engine.mixed_precision or {}).get("param_dtype")
    if str(half) in _FLOAT16:
        reject(f"{prefix}.mixed_precision.param_dtype", half, "not built yet; use bf16 or fp32")


def check_model(model: Any) -> None:
    """Refuse model settings that this version does not cover.

    Args:
        model: veRL's model configuration, as dataclass or mapping.

    Raises:
        ValueError: names key, value and remedy.
    """
    prefix = "actor_rollout_ref.model"
    ranks = {
        "lora_rank": model.get("lora_rank", None) or 0,
        "lora.rank": (model.get("lora", None) or {}).get("rank", None) or 0,
    }
    for key, rank in ranks.items():
        if rank > 0:
            reject(f"{prefix}.{key}", rank, "LoRA is not built yet; use 0")
    if model.get("use_fused_kernels", False):
        reject(f"{prefix}.use_fused_kernels", True, "not shown to be right; set it to false")


def check_units(actor: Any, rule: UpdateRule, ranks: int) -> None:
    """Refuse a mini-batch that leaves a single unit to measure the variance over.

    Args:
        actor: veRL's actor configuration.
        rule: the resolved rule.
        ranks: data-parallel ranks.

    Raises:
        ValueError: the rule needs a variance and there can be none, or there are no two halves.
    """
    rows = actor.ppo_mini_batch_size * actor.rollout_n // ranks
    size = None if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu
    if rule.settings.variance.estimator == "split_half":
        # Every rule then takes its gradients in two halves, whether it reads the variance or not.
        _check_halves(actor, rows, size)
    elif rule.needs_variance and size is not None and rows * ranks < 2 * size:
        reject(
            f"{_ACTOR}.ppo_micro_batch_size_per_gpu",
            size,
            f"the variance is measured over micro-batches and a mini-batch has {rows * ranks} "
            f"sequences; at most {rows * ranks // 2} leaves two of them",
        )


def _check_halves(actor: Any, rows: int, size: int | None) -> None:
    """Refuse a mini-batch whose part on one rank cannot be halved between micro-batches."""
    if rows < 2:
        reject(
            f"{_ACTOR}.ppo_mini_batch_size",
            actor.ppo_mini_batch_size,
            f"split_half needs 2 sequences per rank, and with rollout.n={actor.rollout_n} it "
            f"leaves {rows}",
        )
    if size is not None and rows < 2 * size:
        reject(
            f"{_ACTOR}.ppo_micro_batch_size_per_gpu",
            size,
            f"split_half needs two micro-batches per rank, which has {rows} sequences; use at "
            f"most {rows // 2}",
        )


def check_mesh(engine: Any, ranks: int) -> None:
    """Refuse hybrid sharding, whose replicas this version would count twice.

    Args:
        engine: veRL's FSDPEngineConfig.
        ranks: all ranks of the actor.

    Raises:
        ValueError: fewer ranks per shard group than there are.
    """
    if engine.fsdp_size not in (-1, ranks) and engine.fsdp_size < ranks:
        reject(
            f"{_ACTOR}.fsdp_config.fsdp_size",
            engine.fsdp_size,
            f"hybrid sharding is not built yet; use -1 or {ranks}",
        )
