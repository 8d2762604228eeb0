#!/usr/bin/env bash
# Qwen2.5-0.5B-Instruct on GSM8K. FSDP2, one GPU.
#   bash recipes/gsm8k_qwen2_5_0_5b/run.sh                   PCR
#   UPDATE_RULE=null bash recipes/gsm8k_qwen2_5_0_5b/run.sh  GRPO
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-0.5B-Instruct}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-1}
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

RECIPE=(
    algorithm.adv_estimator=grpo
    data.train_files="$DATA_DIR/gsm8k/train.parquet"
    data.val_files="$DATA_DIR/gsm8k/test.parquet"
    data.max_prompt_length=512
    data.max_response_length=1024
    data.train_batch_size=256
    # Four optimizer steps a batch.
    actor_rollout_ref.actor.ppo_mini_batch_size=64
    actor_rollout_ref.actor.optim.lr=1e-6
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192
    actor_rollout_ref.rollout.n=8
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
    actor_rollout_ref.rollout.gpu_memory_utilization=0.4
    trainer.total_epochs=5
    trainer.test_freq=5
    trainer.save_freq=29
)

exec python3 -m verl.trainer.main_ppo "${COMMON[@]}" "${FSDP2[@]}" "${RECIPE[@]}" "$@"
