"""What a veRL run on a CPU needs beside `VERL_PLATFORM=cpu`: in one place, for every caller."""

import os
import sys

# veRL's defaults that name something a CPU does not have. Those of the critic say nothing in a run
# without one.
NEEDED: dict[str, str] = {
    "trainer.device": "cpu",
    # Packing sequences goes through flash-attention's varlen kernels.
    "actor_rollout_ref.model.use_remove_padding": "False",
    "critic.model.use_remove_padding": "False",
    "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "+critic.model.override_config.attn_implementation": "sdpa",
    # Compiling costs minutes before the first step, and vLLM would capture CUDA graphs.
    "actor_rollout_ref.actor.use_torch_compile": "False",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": "False",
    "actor_rollout_ref.ref.fsdp_config.use_torch_compile": "False",
    "critic.fsdp.use_torch_compile": "False",
    "actor_rollout_ref.rollout.enforce_eager": "True",
    # The default is two devices to a rollout.
    "actor_rollout_ref.rollout.tensor_model_parallel_size": "1",
    # bfloat16 is emulated on most CPUs: slower than float32, and too coarse for the small models
    # that fit there (a step of 1e-6 leaves the KL at exactly 0).
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "fp32",
    "+actor_rollout_ref.ref.fsdp_config.mixed_precision.param_dtype": "fp32",
    "+critic.fsdp.mixed_precision.param_dtype": "fp32",
    "actor_rollout_ref.rollout.dtype": "float32",
}

# Processes and memory that a large machine can spare. Every worker is a Python process that
# imports torch, seconds each on a laptop.
FRUGAL: dict[str, str] = {
    "trainer.nnodes": "1",
    "actor_rollout_ref.rollout.agent.num_workers": "1",
    "reward.num_workers": "1",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": "1",
    "data.dataloader_num_workers": "0",
    "+ray_kwargs.ray_init.include_dashboard": "False",
    # Shared memory for a weight update, 2 GiB by default; the largest tensor must fit.
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes": "64",
}


def hydra_overrides(workers: int = 1) -> list[str]:
    """Arguments for `python -m verl.trainer.main_ppo`.

    Args:
        workers: processes to shard the actor over; `trainer.n_gpus_per_node` in veRL's words.
    """
    settings = NEEDED | FRUGAL | {"trainer.n_gpus_per_node": str(workers)}
    return [f"{key}={value}" for key, value in settings.items()]


def environment(threads: int = 1) -> dict[str, str]:
    """This process's environment, ready for a veRL run on the CPU.

    Args:
        threads: of each process; more than one makes the processes fight for a few cores.
    """
    return os.environ | {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": str(threads)}


if __name__ == "__main__":
    sys.stdout.write(" ".join(hydra_overrides(*map(int, sys.argv[1:2]))) + "\n")
