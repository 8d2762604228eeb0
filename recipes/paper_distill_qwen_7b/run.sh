#!/usr/bin/env bash
# DeepSeek-R1-Distill-Qwen-7B on 4,000 problems of NuminaMath (section 6.1 of the paper). FSDP2, 8 GPUs.
#   bash recipes/paper_distill_qwen_7b/run.sh                   PCR
#   UPDATE_RULE=null bash recipes/paper_distill_qwen_7b/run.sh  GRPO
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-deepseek-ai/DeepSeek-R1-Distill-Qwen-7B}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

RECIPE=(
    data.train_files="$DATA_DIR/numina/train.parquet"
    data.val_files="$DATA_DIR/math_benchmarks/test.parquet"
    data.max_prompt_length=1024
    # From here on: not in the paper.
    actor_rollout_ref.rollout.n=8
    actor_rollout_ref.rollout.tensor_model_parallel_size=2
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    actor_rollout_ref.rollout.val_kwargs.n=8
    actor_rollout_ref.rollout.val_kwargs.do_sample=True
    actor_rollout_ref.rollout.val_kwargs.temperature=0.6
    actor_rollout_ref.rollout.val_kwargs.top_p=0.95
    # At least one whole sequence; twice that where no gradient is kept.
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=17408
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=34816
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=34816
    # 4,000 problems are 15 steps.
    trainer.total_epochs=10
    trainer.test_freq=20
    trainer.save_freq=20
)

exec python3 -m verl.trainer.main_ppo \
    "${COMMON[@]}" "${FSDP2[@]}" "${PAPER[@]}" "${RECIPE[@]}" "$@"
