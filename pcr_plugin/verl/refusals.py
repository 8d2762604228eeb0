"""Actor configurations that PCR cannot be right for; each error names the remedy."""

from typing import Any

from pcr_plugin.config import UpdateRule
from pcr_plugin.config.checks import reject
from pcr_plugin.verl.refusals_losses import check_losses
from pcr_plugin.verl.refusals_megatron import (
    check_megatron,
    may_hold_experts,
    micro_batches_at_a_time,
)
from pcr_plugin.verl.sharing import check_engine_shares, check_model_shares

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
    check_losses(actor, rule, recipe)
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


def check_ranks(engine: Any, ranks: int) -> None:
    """Refuse ranks that do not make whole replicas of the actor.

    Args:
        engine: veRL's engine configuration of a covered backend.
        ranks: all ranks of the actor.

    Raises:
        ValueError: names keys, value and remedy.
    """
    needed = ranks_of_a_replica(engine)
    if ranks % needed:
        reject(
            "trainer.n_gpus_per_node x trainer.nnodes",
            ranks,
            f"one replica of the actor takes {needed} ranks; use a multiple of it",
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
        _check_micro_batches(actor, rows * ranks, size, together)


def _check_micro_batches(actor: Any, rows: int, size: int, together: int) -> None:
    """Refuse a mini-batch of a single unit, which may be several ranks' micro-batches."""
    if rows >= 2 * size * together:
        return
    units = "micro-batches" if together == 1 else f"micro-batches, {together} at a time in experts,"
    why = f"the variance is measured over {units} and a mini-batch has {rows} sequences"
    most = rows // (2 * together)
    if most == 0:
        # Of micro-batches of one sequence there is one, too.
        key, least = f"{_ACTOR}.ppo_mini_batch_size", 2 * together
        reject(key, actor.ppo_mini_batch_size, f"{why}; it needs at least {least}")
    key = f"{_ACTOR}.ppo_micro_batch_size_per_gpu"
    reject(key, size, f"{why}; at most {most} leaves two of them")


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
    at_a_time = 1
    if _backend(actor.engine) == "megatron":
        at_a_time = micro_batches_at_a_time(actor.engine)
    if at_a_time > 1:
        _check_schedule(actor, rows, size, at_a_time)


def _check_schedule(actor: Any, rows: int, size: int | None, at_a_time: int) -> None:
    """Refuse halves that Megatron-core's schedule for virtual stages does not take."""
    why = (
        "with virtual stages each half of split_half needs a multiple of "
        f"{at_a_time} micro-batches per rank, which has {rows} sequences"
    )
    if size is None:
        if rows < 2 * at_a_time:
            least = f"use at least {2 * at_a_time} sequences per rank"
            reject(f"{_ACTOR}.ppo_mini_batch_size", actor.ppo_mini_batch_size, f"{why}; {least}")
    elif rows // size % (2 * at_a_time):
        reject(
            f"{_ACTOR}.ppo_micro_batch_size_per_gpu",
            size,
            f"{why}; use a size that makes a multiple of {2 * at_a_time} micro-batches of them",
        )
