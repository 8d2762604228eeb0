# shellcheck shell=bash disable=SC2034
# What several recipes have in common. A run.sh sets MODEL_PATH, NNODES and NGPUS_PER_NODE, sources
# this file, and puts its own overrides behind these: of two values for one key Hydra takes the
# last, so an argument of run.sh wins over all.

# null is stock veRL, to the last bit; the others are in the plugin's README.
UPDATE_RULE=${UPDATE_RULE:-pcr}
DATA_DIR=${DATA_DIR:-$HOME/data}
OUTPUT_DIR=${OUTPUT_DIR:-outputs}
# veRL's trainer is a Ray actor on some node, so that its folder is not this one.
[[ $OUTPUT_DIR = /* ]] || OUTPUT_DIR=$PWD/$OUTPUT_DIR
SEED=${SEED:-42}
PROJECT_NAME=${PROJECT_NAME:-pcr_recipes}
# A run goes on from the checkpoints of one of its name, so the name always has rule and seed:
# a baseline must not begin where another rule's run ended.
folder=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
EXPERIMENT_NAME=${EXPERIMENT_NAME:-${folder##*/}}-$UPDATE_RULE-$SEED
# `pcr plot` reads veRL's TensorBoard, file and console logs.
LOGGER=${LOGGER:-'["console","tensorboard"]'}

COMMON=(
    actor_rollout_ref.actor.update_rule="$UPDATE_RULE"
    # A rule needs the KL as a loss. The gradient of k3+ is that of the KL; veRL's default, k3
    # (low_var_kl), has the same value and another gradient.
    actor_rollout_ref.actor.use_kl_loss=True
    actor_rollout_ref.actor.kl_loss_type=k3+
    actor_rollout_ref.actor.kl_loss_coef="${KL_LOSS_COEF:-0.001}"
    algorithm.use_kl_in_reward=False
    # Micro-batches are packed up to a number of tokens, without padding.
    actor_rollout_ref.actor.use_dynamic_bsz=True
    actor_rollout_ref.model.use_remove_padding=True
    actor_rollout_ref.model.path="$MODEL_PATH"
    actor_rollout_ref.rollout.name=vllm
    actor_rollout_ref.rollout.seed="$SEED"
    data.seed="$SEED"
    data.filter_overlong_prompts=True
    data.truncation=error
    trainer.nnodes="$NNODES"
    trainer.n_gpus_per_node="$NGPUS_PER_NODE"
    trainer.logger="$LOGGER"
    trainer.project_name="$PROJECT_NAME"
    trainer.experiment_name="$EXPERIMENT_NAME"
    trainer.default_local_dir="$OUTPUT_DIR/checkpoints/$PROJECT_NAME/$EXPERIMENT_NAME"
    trainer.max_actor_ckpt_to_keep=2
    # Where it is: TensorBoard's default is a folder below that of the trainer.
    +ray_kwargs.ray_init.runtime_env.env_vars.TENSORBOARD_DIR="$OUTPUT_DIR/tensorboard_log/$PROJECT_NAME/$EXPERIMENT_NAME"
)

FSDP2=(
    actor_rollout_ref.actor.strategy=fsdp2
    actor_rollout_ref.model.enable_gradient_checkpointing=True
    # The reference policy is needed for one pass a step.
    actor_rollout_ref.ref.fsdp_config.param_offload=True
)

MEGATRON=(
    model_engine=megatron
    # mbridge: what the plugin's tests run. Without this veRL takes Megatron-Bridge.
    actor_rollout_ref.actor.megatron.vanilla_mbridge=True
    actor_rollout_ref.actor.megatron.param_offload=True
    actor_rollout_ref.actor.megatron.optimizer_offload=True
    # Every layer's activations are computed again in the backward pass.
    actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularity=full
    actor_rollout_ref.actor.megatron.override_transformer_config.recompute_method=uniform
    actor_rollout_ref.actor.megatron.override_transformer_config.recompute_num_layers=1
)

# What the paper says: section 6.1, and the objective of section 3.1.
PAPER=(
    algorithm.adv_estimator=grpo
    # Eq. 1: the mean over answers of the mean over an answer's tokens. All answers then weigh the
    # same, and are the units of the variance.
    actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean
    actor_rollout_ref.actor.pcr.variance.estimator=sequence
    actor_rollout_ref.actor.optim.lr=1e-6
    actor_rollout_ref.actor.optim.weight_decay=0.01
    data.train_batch_size=256
    # One optimizer step per batch of 256 questions.
    actor_rollout_ref.actor.ppo_mini_batch_size=256
    data.max_response_length=16384
)
