#!/usr/bin/env bash
# GRPO with PCR in OpenRLHF: OpenRLHF's own command, with `-m pcr_plugin.openrlhf` for
# `-m openrlhf.cli.train_ppo_ray` and one flag more. Needs OpenRLHF 0.11.2 with vLLM, and a node
# with 8 GPUs: 4 for policy and reference, 4 for vLLM. Not run by us on GPUs.
set -euo pipefail
MODEL=${MODEL:?a Hugging Face model}
PROMPTS=${PROMPTS:?a data set of prompts}
REWARD=${REWARD:?a reward model, its URL or a file with a reward function}

python -m pcr_plugin.openrlhf \
  --actor.model_name_or_path "$MODEL" \
  --data.prompt_dataset "$PROMPTS" \
  --reward.remote_url "$REWARD" \
  --algo.advantage.estimator group_norm \
  --rollout.n_samples_per_prompt 8 \
  --algo.kl.use_loss \
  --algo.kl.estimator k2 \
  --algo.kl.init_coef 1e-3 \
  --train.batch_size 128 \
  --train.micro_batch_size 4 \
  --ds.zero_stage 2 \
  --train.colocate_actor_ref \
  --actor.num_gpus_per_node 4 \
  --ref.num_gpus_per_node 4 \
  --vllm.num_engines 4 \
  --vllm.tensor_parallel_size 1 \
  --actor.update_rule pcr \
  --actor.pcr.preset robust \
  "$@"
