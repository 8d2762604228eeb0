#!/usr/bin/env bash
# Qwen2.5-1.5B-Instruct on MATH by PPO with a critic. FSDP2, 8 GPUs.
#   bash recipes/ppo_critic_qwen2_5_1_5b/run.sh                   PCR
#   UPDATE_RULE=null bash recipes/ppo_critic_qwen2_5_1_5b/run.sh  PPO with a KL loss
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-1.5B-Instruct}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

RECIPE=(
    algorithm.adv_estimator=gae
    algorithm.gamma=1.0
    algorithm.lam=1.0
    data.train_files="$DATA_DIR/math/train.parquet"
    data.val_files="$DATA_DIR/math/test.parquet"
    data.max_prompt_length=1024
    data.max_response_length=2048
    data.train_batch_size=1024
    actor_rollout_ref.actor.ppo_mini_batch_size=256
    actor_rollout_ref.actor.optim.lr=1e-6
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384
    actor_rollout_ref.rollout.n=1
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
    actor_rollout_ref.rollout.gpu_memory_utilization=0.5
    # The critic has one loss and stays veRL's own.
    critic.strategy=fsdp2
    critic.model.path="${CRITIC_PATH:-$MODEL_PATH}"
    critic.model.use_remove_padding=True
    critic.model.enable_gradient_checkpointing=True
    critic.optim.lr=1e-5
    critic.ppo_max_token_len_per_gpu=32768
    trainer.total_epochs=15
    trainer.test_freq=5
    trainer.save_freq=20
)

exec python3 -m verl.trainer.main_ppo "${COMMON[@]}" "${FSDP2[@]}" "${RECIPE[@]}" "$@"
