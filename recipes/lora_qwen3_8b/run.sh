#!/usr/bin/env bash
# Qwen3-8B with LoRA on GSM8K. FSDP2, 2 GPUs.
#   bash recipes/lora_qwen3_8b/run.sh                   PCR
#   UPDATE_RULE=null bash recipes/lora_qwen3_8b/run.sh  GRPO with LoRA
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-8B}
NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-2}
# shellcheck source-path=SCRIPTDIR source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

RECIPE=(
    algorithm.adv_estimator=grpo
    data.train_files="$DATA_DIR/gsm8k/train.parquet"
    data.val_files="$DATA_DIR/gsm8k/test.parquet"
    data.max_prompt_length=512
    data.max_response_length=1024
    # Qwen3's thoughts would not fit into the answer.
    +data.apply_chat_template_kwargs.enable_thinking=False
    # Sizes as in veRL's own LoRA example.
    data.train_batch_size=64
    actor_rollout_ref.actor.ppo_mini_batch_size=32
    actor_rollout_ref.actor.optim.lr=3e-6
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=12288
    # The rule sees the adapters of the MLPs; the reference policy is the model without adapters.
    actor_rollout_ref.model.lora_rank=64
    actor_rollout_ref.model.lora_alpha=32
    actor_rollout_ref.rollout.load_format=safetensors
    actor_rollout_ref.rollout.layered_summon=True
    actor_rollout_ref.rollout.n=5
    actor_rollout_ref.rollout.tensor_model_parallel_size=2
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    trainer.total_epochs=15
    trainer.test_freq=5
    trainer.save_freq=20
)

exec python3 -m verl.trainer.main_ppo "${COMMON[@]}" "${FSDP2[@]}" "${RECIPE[@]}" "$@"
