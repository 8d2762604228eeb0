#!/usr/bin/env bash
# DeepSeek-R1-Distill-Qwen-1.5B on DeepScaleR's problems. FSDP2, 8 GPUs.
#   bash recipes/deepscaler_1_5b_fsdp2/run.sh                   PCR
#   UPDATE_RULE=null bash recipes/deepscaler_1_5b_fsdp2/run.sh  GRPO
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

RECIPE=(
    algorithm.adv_estimator=grpo
    data.train_files="$DATA_DIR/deepscaler/train.parquet"
    data.val_files="$DATA_DIR/math_benchmarks/test.parquet"
    data.max_prompt_length=1024
    data.max_response_length=8192
    data.train_batch_size=128
    actor_rollout_ref.actor.ppo_mini_batch_size=64
    actor_rollout_ref.actor.optim.lr=1e-6
    # Two whole sequences.
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=18432
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=36864
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=36864
    actor_rollout_ref.rollout.n=8
    actor_rollout_ref.rollout.tensor_model_parallel_size=1
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    actor_rollout_ref.rollout.val_kwargs.n=4
    actor_rollout_ref.rollout.val_kwargs.do_sample=True
    actor_rollout_ref.rollout.val_kwargs.temperature=0.6
    actor_rollout_ref.rollout.val_kwargs.top_p=0.95
    trainer.total_epochs=2
    trainer.test_freq=20
    trainer.save_freq=20
)

exec python3 -m verl.trainer.main_ppo "${COMMON[@]}" "${FSDP2[@]}" "${RECIPE[@]}" "$@"
