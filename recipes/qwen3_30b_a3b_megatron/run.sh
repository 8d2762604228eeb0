#!/usr/bin/env bash
# Qwen3-30B-A3B on DAPO-Math-17k. Megatron TP2 PP2 EP8, 4 nodes of 8 GPUs.
#   bash recipes/qwen3_30b_a3b_megatron/run.sh                   PCR
#   UPDATE_RULE=null bash recipes/qwen3_30b_a3b_megatron/run.sh  GRPO
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-30B-A3B}
NNODES=${NNODES:-4}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

RECIPE=(
    algorithm.adv_estimator=grpo
    data.train_files="$DATA_DIR/dapo_math/train.parquet"
    data.val_files="$DATA_DIR/math_benchmarks/test.parquet"
    data.max_prompt_length=2048
    data.max_response_length=8192
    data.train_batch_size=256
    actor_rollout_ref.actor.ppo_mini_batch_size=128
    actor_rollout_ref.actor.optim.lr=1e-6
    # 8 data-parallel ranks; each expert lies whole on a rank, and twice in the cluster.
    actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2
    actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2
    actor_rollout_ref.actor.megatron.expert_model_parallel_size=8
    actor_rollout_ref.actor.megatron.expert_tensor_parallel_size=1
    +actor_rollout_ref.actor.megatron.override_transformer_config.moe_router_dtype=fp32
    # One whole sequence; two where no gradient is kept.
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=10240
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=20480
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=20480
    actor_rollout_ref.rollout.n=8
    actor_rollout_ref.rollout.tensor_model_parallel_size=4
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    actor_rollout_ref.rollout.val_kwargs.n=4
    actor_rollout_ref.rollout.val_kwargs.do_sample=True
    actor_rollout_ref.rollout.val_kwargs.temperature=0.6
    actor_rollout_ref.rollout.val_kwargs.top_p=0.95
    trainer.total_epochs=2
    trainer.test_freq=20
    trainer.save_freq=20
)

exec python3 -m verl.trainer.main_ppo "${COMMON[@]}" "${MEGATRON[@]}" "${RECIPE[@]}" "$@"
