#!/usr/bin/env bash
# Qwen2.5-7B (base) on DAPO-Math-17k in the manner of DAPO, with a KL loss. FSDP2, 8 GPUs.
#   bash recipes/dapo_qwen2_5_7b/run.sh                   PCR
#   UPDATE_RULE=null bash recipes/dapo_qwen2_5_7b/run.sh  DAPO with a KL loss
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

RECIPE=(
    algorithm.adv_estimator=grpo
    data.train_files="$DATA_DIR/dapo_math/train.parquet"
    data.val_files="$DATA_DIR/math_benchmarks/test.parquet"
    data.max_prompt_length=2048
    data.max_response_length=8192
    # The four parts of DAPO: a higher upper clip, ...
    actor_rollout_ref.actor.clip_ratio_low=0.2
    actor_rollout_ref.actor.clip_ratio_high=0.28
    actor_rollout_ref.actor.clip_ratio_c=10.0
    # ... no groups whose answers are all right or all wrong, ...
    algorithm.filter_groups.enable=True
    algorithm.filter_groups.metric=acc
    # ... a loss per token, ...
    actor_rollout_ref.actor.loss_agg_mode=token-mean
    # ... and a penalty on the last quarter of the tokens.
    reward.reward_manager.name=dapo
    +reward.reward_kwargs.max_resp_len=8192
    +reward.reward_kwargs.overlong_buffer_cfg.enable=True
    +reward.reward_kwargs.overlong_buffer_cfg.len=2048
    +reward.reward_kwargs.overlong_buffer_cfg.penalty_factor=1.0
    +reward.reward_kwargs.overlong_buffer_cfg.log=False
    data.train_batch_size=256
    actor_rollout_ref.actor.ppo_mini_batch_size=32
    actor_rollout_ref.actor.optim.lr=1e-6
    actor_rollout_ref.actor.optim.lr_warmup_steps=10
    actor_rollout_ref.actor.optim.weight_decay=0.1
    # Two whole sequences; four where no gradient is kept.
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=20480
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=40960
    actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=40960
    actor_rollout_ref.rollout.n=16
    actor_rollout_ref.rollout.tensor_model_parallel_size=2
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    actor_rollout_ref.rollout.val_kwargs.n=4
    actor_rollout_ref.rollout.val_kwargs.do_sample=True
    actor_rollout_ref.rollout.val_kwargs.temperature=1.0
    actor_rollout_ref.rollout.val_kwargs.top_p=0.7
    trainer.total_training_steps=200
    trainer.total_epochs=100
    trainer.test_freq=10
    trainer.save_freq=20
)

exec python3 -m verl.trainer.main_ppo "${COMMON[@]}" "${FSDP2[@]}" "${RECIPE[@]}" "$@"
