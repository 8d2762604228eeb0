#!/usr/bin/env bash
# Qwen2-7B-Instruct on programming tasks (section 6.2 of the paper). FSDP2, 8 GPUs.
#   bash recipes/paper_qwen2_7b_code/run.sh                   PCR
#   UPDATE_RULE=null bash recipes/paper_qwen2_7b_code/run.sh  GRPO
# The reward runs programs that the model wrote: set SANDBOX_URL (README.md).
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2-7B-Instruct}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

RECIPE=(
    data.train_files="$DATA_DIR/eurus_code/train.parquet"
    data.val_files="$DATA_DIR/eurus_code/test.parquet"
    data.max_prompt_length=2048
    reward.sandbox_fusion.url="${SANDBOX_URL:-null}"
    # From here on: not in the paper.
    actor_rollout_ref.rollout.n=8
    actor_rollout_ref.rollout.tensor_model_parallel_size=2
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    actor_rollout_ref.rollout.val_kwargs.n=1
    actor_rollout_ref.rollout.val_kwargs.do_sample=False
    # At least one whole sequence; twice that where no gradient is kept.
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=18432
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=36864
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=36864
    trainer.total_epochs=2
    trainer.test_freq=20
    trainer.save_freq=20
)

exec python3 -m verl.trainer.main_ppo \
    "${COMMON[@]}" "${FSDP2[@]}" "${PAPER[@]}" "${RECIPE[@]}" "$@"
