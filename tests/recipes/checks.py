"""What the configuration of a recipe must pass: veRL's checks and ours before Ray starts, sizes."""

from omegaconf import DictConfig
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from pcr_plugin.verl.refusals import ranks_of_a_replica

# Of the models' public configurations: attention heads, layers, experts.
SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": (14, 24, 0),
    "Qwen/Qwen2.5-1.5B-Instruct": (12, 28, 0),
    "Qwen/Qwen2-7B-Instruct": (28, 28, 0),
    "Qwen/Qwen2.5-7B": (28, 28, 0),
    "Qwen/Qwen3-8B": (32, 36, 0),
    "Qwen/Qwen3-30B-A3B": (32, 48, 128),
    "agentica-org/DeepScaleR-1.5B-Preview": (12, 28, 0),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": (32, 32, 0),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (12, 28, 0),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": (28, 28, 0),
}


def main_ppo_starts(config: DictConfig) -> None:
    """Refusals of the rule are in it: the actor's configuration is ours."""
    rule = config.actor_rollout_ref.actor.update_rule
    validate_config(
        config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.engine.strategy.startswith("pcr:") == (rule is not None)


def workers_build(config: DictConfig) -> None:
    """Blocks that veRL makes objects of in its workers, where a wrong value ends the run late."""
    parts = config.actor_rollout_ref
    assert parts.ref.strategy == parts.actor.strategy
    assert omega_conf_to_dataclass(parts.rollout).name == "vllm"
    assert omega_conf_to_dataclass(config.algorithm).use_kl_in_reward is False
    assert omega_conf_to_dataclass(config.reward.sandbox_fusion).url is None


def batches_divide(config: DictConfig) -> None:
    """Among the ranks."""
    parts, data = config.actor_rollout_ref, config.data
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    engine = omega_conf_to_dataclass(parts.actor).engine
    of_one_model = ranks_of_a_replica(engine)
    assert gpus % of_one_model == 0
    replicas = gpus // of_one_model
    rows = parts.actor.ppo_mini_batch_size * parts.rollout.n
    assert data.train_batch_size % parts.actor.ppo_mini_batch_size == 0
    assert rows % replicas == 0
    # Enough rows for two units of the variance on one rank, whatever their lengths.
    assert rows // replicas >= 2
    if need_critic(config):
        assert config.critic.ppo_mini_batch_size * config.critic.rollout_n % gpus == 0


def sequences_fit(config: DictConfig) -> None:
    """Into a micro-batch."""
    parts = config.actor_rollout_ref
    longest = config.data.max_prompt_length + config.data.max_response_length
    for tokens in (
        parts.actor.ppo_max_token_len_per_gpu,
        parts.rollout.log_prob_max_token_len_per_gpu,
        parts.ref.log_prob_max_token_len_per_gpu,
    ):
        assert tokens >= longest
    assert parts.rollout.log_prob_use_dynamic_bsz
    assert parts.ref.log_prob_use_dynamic_bsz


def the_model_can_be_cut(config: DictConfig) -> None:
    """By the rollout, and by Megatron-core."""
    parts = config.actor_rollout_ref
    heads, layers, experts = SHAPES[parts.model.path]
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    assert heads % parts.rollout.tensor_model_parallel_size == 0
    assert config.trainer.n_gpus_per_node % parts.rollout.tensor_model_parallel_size == 0
    if parts.actor.strategy != "megatron":
        return
    engine = parts.actor.megatron
    tensor, stages = engine.tensor_model_parallel_size, engine.pipeline_model_parallel_size
    of_expert = engine.expert_tensor_parallel_size or tensor
    assert heads % tensor == 0
    assert layers % (stages * (engine.virtual_pipeline_model_parallel_size or 1)) == 0
    assert (experts > 0) == (engine.expert_model_parallel_size > 1)
    assert experts % engine.expert_model_parallel_size == 0
    assert gpus // stages % (engine.expert_model_parallel_size * of_expert) == 0
    for size in ("tensor", "pipeline", "expert"):
        key = f"{size}_model_parallel_size"
        assert parts.ref.megatron[key] == engine[key]


CHECKS = (main_ppo_starts, workers_build, batches_divide, sequences_fit, the_model_can_be_cut)


def accepted(config: DictConfig) -> None:
    """All checks."""
    for check in CHECKS:
        check(config)
