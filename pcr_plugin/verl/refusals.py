"""Actor configurations that PCR cannot be right for; each error names the remedy."""

import logging
from typing import Any

from pcr_plugin.config import UpdateRule
from pcr_plugin.config.checks import reject
from pcr_plugin.verl.refusals_megatron import check_megatron, may_hold_experts
from pcr_plugin.verl.sharing import check_engine_shares, check_model_shares

logger = logging.getLogger(__name__)

# Straight-through k2: the value of the estimator, the gradient of the KL.
GOOD_KL = ("k1+", "abs+", "k2", "mse", "k2+", "mse+", "k3+", "low_var_kl+")
BIASED_KL = ("low_var_kl", "k3")
_ACTOR = "actor_rollout_ref.actor"


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
    if rule.settings.zero_advantage == "group" and actor.use_dynamic_bsz:
        reject(
            "pcr.zero_advantage",
            "group",
            f"with {_ACTOR}.use_dynamic_bsz=True veRL cuts micro-batches by length, in an order of "
            "its own; use skip",
        )
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


def check_engine(engine: Any, rule: UpdateRule, ranks: int | None = None) -> None:
    """Refuse engine settings that cannot be shown right.

    Args:
        engine: veRL's engine configuration of a covered backend.
        rule: the resolved rule.
        ranks: all ranks of the actor, if they are known.

    Raises:
        ValueError: names key, value and remedy.
    """
    check_engine_shares(engine, rule)
    block = "megatron" if _backend(engine) == "megatron" else "fsdp_config"
    if (getattr(engine, "qat", None) or {}).get("enable", False):
        key = f"{_ACTOR}.{block}.qat.enable"
        reject(key, True, "quantisation-aware training is not supported")
    if block == "megatron":
        check_megatron(engine, rule)
        return
    if _backend(engine) == "fsdp" and engine.fsdp_size == 1 and (ranks or 1) > 1:
        reject(
            f"{_ACTOR}.fsdp_config.fsdp_size",
            1,
            "FSDP1 then averages no gradients between the ranks, with or without a rule; use -1, "
            "or strategy=fsdp2",
        )
    parallel = engine.ulysses_sequence_parallel_size
    if parallel > 1 and rule.settings.variance.estimator == "micro_batch":
        reject(
            f"{_ACTOR}.ulysses_sequence_parallel_size",
            parallel,
            "a rank then sees a slice of the tokens of each micro-batch, which is no unit of "
            "pcr.variance.estimator=micro_batch; use sequence or split_half, or set it to 1",
        )


def ranks_of_a_replica(engine: Any) -> int:
    """Ranks that work on the same rows.

    Args:
        engine: veRL's engine configuration of a covered backend.
    """
    if _backend(engine) != "megatron":
        return int(engine.ulysses_sequence_parallel_size)
    return int(
        engine.tensor_model_parallel_size
        * engine.pipeline_model_parallel_size
        * engine.context_parallel_size
    )


def ranks_of_an_expert(engine: Any) -> int:
    """Data-parallel ranks whose micro-batches an expert gets together; 1 but on Megatron.

    Args:
        engine: veRL's engine configuration of a covered backend.
    """
    if _backend(engine) != "megatron":
        return 1
    tensor = engine.tensor_model_parallel_size
    of_experts = engine.expert_tensor_parallel_size or tensor
    return max(1, int(engine.expert_model_parallel_size * of_experts // tensor))


def _backend(engine: Any) -> str:
    """The stock backend that our backend's name ends with."""
    return str(engine.strategy).rpartition(":")[2]


def check_model(model: Any, strategy: str, rule: UpdateRule) -> None:
    """Refuse model settings that cannot be shown right.

    Args:
        model: veRL's model configuration, as dataclass or mapping.
        strategy: of the engine configuration.
        rule: the resolved rule.

    Raises:
        ValueError: names key, value and remedy.
    """
    if model.get("use_fused_kernels", False):
        reject(
            "actor_rollout_ref.model.use_fused_kernels",
            True,
            "not shown to be right; set it to false",
        )
    check_model_shares(model, rule)
    if strategy.endswith("megatron"):
        _check_adapters(model)


def _check_adapters(model: Any) -> None:
    rank = (model.get("lora", None) or {}).get("rank", None) or 0
    if rank > 0:
        reject(
            "actor_rollout_ref.model.lora.rank",
            rank,
            "veRL trains adapters on Megatron through Megatron-Bridge alone, with which no rule "
            "has been run; use 0, or an FSDP engine with lora_rank",
        )
    rank = model.get("lora_rank", None) or 0
    if rank > 0:
        reject(
            "actor_rollout_ref.model.lora_rank",
            rank,
            "veRL's Megatron engine does not read it and would train the whole model; use 0",
        )


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
    elif rule.settings.variance.estimator == "sequence":
        if rule.needs_variance and rows * ranks < 2:
            reject(
                f"{_ACTOR}.ppo_mini_batch_size",
                actor.ppo_mini_batch_size,
                f"the variance is measured over sequences, and with rollout.n={actor.rollout_n} "
                "there is one",
            )
    elif rule.needs_variance and size is not None:
        together = ranks_of_an_expert(actor.engine) if may_hold_experts(rule) else 1
        _check_micro_batches(rows * ranks, size, together)


def _check_micro_batches(rows: int, size: int, together: int) -> None:
    """Refuse a mini-batch of a single unit, which may be several ranks' micro-batches."""
    if rows >= 2 * size * together:
        return
    units = "micro-batches" if together == 1 else f"micro-batches, {together} at a time in experts,"
    remedy = f"at most {rows // (2 * together)} leaves two of them"
    if rows < 2 * together:
        remedy = "use pcr.variance.estimator=split_half"
    reject(
        f"{_ACTOR}.ppo_micro_batch_size_per_gpu",
        size,
        f"the variance is measured over {units} and a mini-batch has {rows} sequences; {remedy}",
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
